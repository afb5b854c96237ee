import { createSocket } from "node:dgram";
import { once } from "node:events";
import type { Page } from "playwright-core";
import { chromium } from "playwright-core";
import { afterEach, expect, it } from "vitest";
import type { Shown } from "../../src/node/admin/admin-server.ts";
import { AdminServer } from "../../src/node/admin/admin-server.ts";
import { openTunnel, shown } from "./admin-tunnel.ts";
import { describeWith } from "./peer-program.ts";

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
  const { server, local } = await openTunnel(cleanups);
  const ofLocal = shown("udp-local", local);
  const admin = await AdminServer.listen(
    "127.0.0.1:0",
    token === undefined ? undefined : Buffer.from(token),
    {
      ...ofLocal,
      ...change(ofLocal),
    },
  );
  cleanups.push(() => admin.close());
  return { local, server, address: admin.address };
}

describeWith(["chromium"], "the dashboard in Debian's chromium", () => {
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
