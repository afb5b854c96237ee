import { createSocket } from "node:dgram";
import { once } from "node:events";
import { existsSync } from "node:fs";
import type { Page } from "playwright-core";
import { chromium } from "playwright-core";
import { afterEach, describe, expect, it } from "vitest";
import type { Shown } from "../../src/node/admin/admin-server.ts";
import { AdminServer } from "../../src/node/admin/admin-server.ts";
import { loadDashboard } from "../../src/node/admin/dashboard.ts";
import { onEvents } from "../../src/node/handles.ts";
import { startUdpLocal } from "../../src/node/udp-local.ts";
import { startUdpServer } from "../../src/node/udp-server.ts";

const PSK = Buffer.from("0123456789abcdef0123456789abcdef");
const CHROMIUM = "/usr/bin/chromium";
const TOKEN = "a-token-of-enough-characters";
const cleanups: (() => unknown)[] = [];

afterEach(async () => {
  for (const clean of cleanups.splice(0).reverse()) await clean();
});

/** A page in a browser, with whatever it complains about and whatever it asks of others. */
async function browse(address: string, theme: "light" | "dark" = "light") {
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"] });
  cleanups.push(() => browser.close());
  const page = await browser.newPage({ colorScheme: theme, viewport: { width: 1280, height: 1000 } });
  const complaints: string[] = [];
  page.on("console", (message) => {
    // The answer 401 is how the page learns that a token is required.
    if (message.type() === "error" && !message.text().includes("401")) complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("request", (request) => {
    if (new URL(request.url()).host !== address) complaints.push(request.url());
  });
  await page.goto(`http://${address}/`);
  return { page, complaints };
}

function number(page: Page, name: string) {
  return page.locator("#numbers div", { has: page.locator(`dt:text-is("${name}")`) }).locator("dd");
}

/** A client with a forward to an echo, and its admin server. */
async function open(token: string | undefined, change: (shown: Shown) => Partial<Shown> = () => ({})) {
  const echo = createSocket("udp4");
  echo.on("message", (message, { port }) => echo.send(message, port, "127.0.0.1"));
  echo.bind(0, "127.0.0.1");
  await once(echo, "listening");
  cleanups.push(() => echo.close());
  const server = await startUdpServer({ listen: ["127.0.0.1:0"], psk: PSK, allow: ["127.0.0.0/8"] });
  cleanups.push(() => server.close());
  const local = await startUdpLocal({
    listen: false,
    server: server.address.listen[0],
    psk: PSK,
    forwards: [{ listen: "127.0.0.1:0", target: `127.0.0.1:${echo.address().port}` }],
  });
  cleanups.push(() => local.close());
  const shown: Shown = {
    program: "udp-local",
    version: "1.2.3",
    address: local.address,
    dashboard: loadDashboard(new URL("../../dist/dashboard.html", import.meta.url)),
    stats: () => local.stats(),
    status: () => local.status(),
    isReady: () => local.stats().sessions > 0,
    onEvent: (listener) => onEvents(local, listener),
  };
  const admin = await AdminServer.listen(
    "127.0.0.1:0",
    token === undefined ? undefined : Buffer.from(token),
    {
      ...shown,
      ...change(shown),
    },
  );
  cleanups.push(() => admin.close());
  return { local, server, address: admin.address };
}

describe.skipIf(!existsSync(CHROMIUM))("the dashboard in Debian's chromium", () => {
  it.each(["light", "dark"] as const)(
    "shows a live tunnel, %s, without a request to elsewhere",
    async (theme) => {
      const { local, server, address } = await open(undefined);
      if (local.stats().sessions === 0) await once(local, "session-up");
      const { page, complaints } = await browse(address, theme);
      await page.locator("#state", { hasText: /^Ready$/ }).waitFor();
      expect(await page.locator("#title").textContent()).toBe("udp-local 1.2.3");
      await page.locator("#lanes li", { hasText: "0: up" }).waitFor();
      const port = Number(local.address.forwards[0].listen.split(":").at(-1));
      const sender = createSocket("udp4");
      const timer = setInterval(() => sender.send(Buffer.alloc(1_000), port, "127.0.0.1"), 5);
      cleanups.push(() => {
        clearInterval(timer);
        sender.close();
      });
      await number(page, "Associations")
        .and(page.getByText("1", { exact: true }))
        .waitFor();
      await page.locator("#rates canvas").waitFor();
      expect(await page.locator("canvas").count()).toBe(4);
      await server.close();
      await page.locator("#state", { hasText: "Not ready" }).waitFor();
      await page.locator("#lanes li.bad").first().waitFor();
      if (process.env.SCREENSHOT)
        await page.screenshot({ path: `${process.env.SCREENSHOT}-${theme}.png`, fullPage: true });
      expect(complaints).toEqual([]);
    },
  );

  it("filters and sorts ten thousand lanes, of which it draws those in sight", async () => {
    const sessions = Array.from({ length: 10_000 }, (_, i) => ({
      ...{ session: `s${i}`, kind: "native", state: "up", associations: i % 100 },
      lanes: [{ lane: 0, state: "up", rttMs: i / 100, isLate: false, carrier: `carrier-${i % 7}` }],
    }));
    const { address } = await open(undefined, () => ({
      status: async () => ({ sessions, sessionsLeftOut: 0 }),
    }));
    const { page, complaints } = await browse(address);
    await page.locator("#shown", { hasText: "10000 of 10000 lanes" }).waitFor();
    expect(await page.locator("#body tr").count()).toBeLessThan(60);
    const column = page.getByRole("button", { name: "Round trip" });
    await column.press("Enter");
    await column.press("Enter");
    await page.locator("#body tr", { hasText: "s9999" }).waitFor();
    await page.getByLabel("Filter").fill("s1234");
    await page.locator("#shown", { hasText: "1 of 10000 lanes" }).waitFor();
    expect(complaints).toEqual([]);
  });

  it("asks for the token, and shows nothing before", async () => {
    const { address } = await open(TOKEN);
    const { page, complaints } = await browse(address);
    await page.getByLabel("Admin token").fill("wrong");
    await page.getByRole("button", { name: "Show" }).click();
    await page.locator("#state", { hasText: "wrong" }).waitFor();
    expect(await page.locator("#main").isVisible()).toBe(false);
    await page.getByLabel("Admin token").fill(TOKEN);
    await page.getByRole("button", { name: "Show" }).click();
    await number(page, "Sessions").waitFor();
    expect(complaints).toEqual([]);
  });
});
