import { spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import type { AddressInfo, Socket } from "node:net";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as wait } from "node:timers/promises";
import type { Page } from "playwright-core";
import { chromium } from "playwright-core";
import { afterEach, expect, it } from "vitest";
import type { Shown } from "../../../src/node/admin/admin-server.ts";
import { AdminServer } from "../../../src/node/admin/admin-server.ts";
import { programFile } from "../../support/hosts.ts";
import { startUdpEcho } from "../../support/udp-echo.ts";
import { openTunnel, PSK, shown } from "../peers/admin-tunnel.ts";
import { describeWith } from "../peers/peer-program.ts";

interface Checker {
  check(
    document: unknown,
    guidelines: readonly string[],
  ): Promise<{
    results: { ruleId: string; value: readonly string[]; message: string; snippet: string }[];
  }>;
}

const CHROMIUM = "/usr/bin/chromium";
const TOKEN = "a-token-of-enough-characters";
const cleanups: (() => unknown)[] = [];

afterEach(async () => {
  for (const clean of cleanups.splice(0).reverse()) await clean();
});

/** A page in a browser, with its errors and its requests to other hosts. */
async function browse(address: string, theme: "light" | "dark" = "light") {
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"] });
  cleanups.push(() => browser.close());
  const page = await browser.newPage({ colorScheme: theme, viewport: { width: 1280, height: 1000 } });
  const complaints: string[] = [];
  page.on("console", (message) => {
    // The page learns from a 401 that it needs a token.
    if (message.type() === "error" && !message.text().includes("401")) complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("request", (request) => {
    if (new URL(request.url()).host !== address) complaints.push(request.url());
  });
  await page.goto(`http://${address}/`);
  return { page, complaints };
}

/** A TCP port that leads to another until it is cut. */
async function startRelay(port: number) {
  const open = new Set<Socket>();
  let isCut = false;
  const server = createServer((near) => {
    if (isCut) {
      near.destroy();
      return;
    }
    const far = connect(port, "127.0.0.1");
    for (const [one, other] of [
      [near, far],
      [far, near],
    ]) {
      open.add(one);
      one.pipe(other);
      one.on("error", () => {});
      one.on("close", () => {
        open.delete(one);
        other.destroy();
      });
    }
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const cut = () => {
    isCut = true;
    for (const socket of open) socket.destroy();
  };
  cleanups.push(() => {
    cut();
    server.close();
  });
  const mend = () => {
    isCut = false;
  };
  return { port: (server.address() as AddressInfo).port, cut, mend };
}

/** The programs with a relay between them and an echo behind them. */
async function startPrograms() {
  const echo = await startUdpEcho();
  cleanups.push(() => echo.close());
  const folder = mkdtempSync(join(tmpdir(), "underpass-dashboard-"));
  cleanups.push(() => rmSync(folder, { recursive: true }));
  const [psk, token] = ["psk", "token"].map((name) => join(folder, name));
  writeFileSync(psk, PSK, { mode: 0o600 });
  writeFileSync(token, TOKEN, { mode: 0o600 });
  const server = await startProgram("udp-server", [
    ...["--psk-file", psk, "--listen", "127.0.0.1:0", "--allow", "127.0.0.1/32"],
  ]);
  const relay = await startRelay(Number(server.listen[0].split(":")[1]));
  const local = await startProgram("udp-local", [
    ...["--psk-file", psk, "--server", `127.0.0.1:${relay.port}`],
    ...["--forward", `127.0.0.1:0=127.0.0.1:${echo.address().port}`],
    ...["--admin", "127.0.0.1:0", "--admin-token-file", token],
  ]);
  const forward = Number(local.forwards[0].listen.split(":")[1]);
  return { address: local.admin as string, forward, relay };
}

/** @returns its ready line */
async function startProgram(name: "udp-local" | "udp-server", options: readonly string[]) {
  const child = spawn(process.execPath, [programFile(name), "--log-format", "json", ...options], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  cleanups.push(async () => {
    child.kill();
    if (child.exitCode === null) await once(child, "exit");
  });
  for await (const line of createInterface({ input: child.stderr })) {
    const said = JSON.parse(line);
    if (said.ready === undefined) continue;
    child.stderr.resume();
    return said;
  }
  throw new Error(`${name} has ended`);
}

/** Waits until the plot of rates shows a rate above 0 under the pointer. */
async function shownRate(page: Page): Promise<void> {
  for (;;) {
    const over = page.locator("#rates .u-over");
    const box = (await over.boundingBox())!;
    for (const share of [0.25, 0.5, 0.75, 0.99]) {
      await over.hover({ position: { x: box.width * share, y: box.height / 2 } });
      const values = await page.locator("#rates .u-legend .u-value").allTextContents();
      if (values.some((text) => Number(text) > 0)) return;
    }
    await wait(300);
  }
}

/** Certain violations of WCAG 2.2 according to IBM's accessibility checker. */
async function faultsOf(page: Page): Promise<unknown[]> {
  await page.evaluate(
    readFileSync(createRequire(import.meta.url).resolve("accessibility-checker-engine/ace.js"), "utf8"),
  );
  return page.evaluate(async () => {
    const window = globalThis as unknown as { document: unknown; ace: { Checker: new () => Checker } };
    const { results } = await new window.ace.Checker().check(window.document, ["WCAG_2_2"]);
    if (results.length === 0) return ["nothing was checked"];
    return results
      .filter(({ value }) => value[0] === "VIOLATION" && value[1] === "FAIL")
      .map(({ ruleId, message, snippet }) => ({ ruleId, message, snippet }));
  });
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
    "shows a live tunnel and its interruption (%s): rates, lane, reason for drops, flows; makes no requests to other hosts",
    async (theme) => {
      const { address, forward, relay } = await startPrograms();
      const { page, complaints } = await browse(address, theme);
      await page.getByLabel("Admin token").fill(TOKEN);
      await page.getByRole("button", { name: "Show" }).click();
      await page.locator("#state", { hasText: /^Ready$/ }).waitFor();
      expect(await page.locator("#title").textContent()).toMatch(/^udp-local \d/);
      await page.locator("#lanes li", { hasText: "0: up" }).waitFor();
      const senders = [createSocket("udp4"), createSocket("udp4")];
      const timer = setInterval(() => {
        for (const sender of senders) sender.send(Buffer.alloc(1_000), forward, "127.0.0.1");
      }, 5);
      cleanups.push(() => {
        clearInterval(timer);
        for (const sender of senders) sender.close();
      });
      await number(page, "Associations")
        .and(page.getByText("2", { exact: true }))
        .waitFor();
      await page.locator("#rates canvas").waitFor();
      expect(await page.locator("canvas").count()).toBe(4);
      await shownRate(page);
      await page
        .locator("#flow-rows")
        .evaluate((rows) => (rows as unknown as { scrollIntoView(): void }).scrollIntoView());
      await page.locator("#flow-shown", { hasText: "2 of 2 flows" }).waitFor();
      const [first] = senders.map((sender) => `127.0.0.1:${sender.address().port}`);
      await page.getByLabel("Filter flows").fill(first);
      await page.locator("#flow-shown", { hasText: "1 of 2 flows" }).waitFor();
      await page.locator("#flow-body tr", { hasText: first }).waitFor();
      await page.getByLabel("Filter flows").fill("");
      expect(await faultsOf(page)).toEqual([]);
      if (process.env.SCREENSHOT) await wait(20_000);
      relay.cut();
      await page.locator("#state", { hasText: "Not ready" }).waitFor();
      await page.locator("#lanes li.bad").first().waitFor();
      const reason = page.locator("#reasons tr", { has: page.locator('td:text-is("age")') });
      await reason.getByText("--age-budget-ms").waitFor();
      relay.mend();
      await page.locator("#state", { hasText: /^Ready$/ }).waitFor();
      if (process.env.SCREENSHOT) await wait(6_000);
      if (process.env.SCREENSHOT)
        await page.screenshot({ path: `${process.env.SCREENSHOT}-${theme}.png`, fullPage: true });
      expect(complaints).toEqual([]);
    },
  );

  it("filters and sorts 10,000 lanes and flows, and draws only the visible ones", async () => {
    const sessions = Array.from({ length: 10_000 }, (_, i) => ({
      ...{ session: `s${i}`, kind: "native", state: "up", associations: i % 100 },
      lanes: [{ lane: 0, state: "up", rttMs: i / 100, isLate: false, carrier: `carrier-${i % 7}` }],
    }));
    const flows = Array.from({ length: 10_000 }, (_, association) => ({
      ...{ session: `s${association % 40}`, association, local: `10.0.0.1:${association}` },
      ...{ remote: "192.0.2.1:53", targets: 1, idleS: association % 60 },
    }));
    const { address } = await open(undefined, () => ({
      status: async () => ({ sessions, sessionsLeftOut: 0 }),
      flows: async () => ({ flows, isCut: false }),
    }));
    const { page, complaints } = await browse(address);
    await page.locator("#lane-shown", { hasText: "10000 of 10000 lanes" }).waitFor();
    expect(await page.locator("#lane-body tr").count()).toBeLessThan(60);
    const column = page.getByRole("button", { name: "Round trip" });
    await column.press("Enter");
    await column.press("Enter");
    await page.locator("#lane-body tr", { hasText: "s9999" }).waitFor();
    await page.getByLabel("Filter sessions").fill("s1234");
    await page.locator("#lane-shown", { hasText: "1 of 10000 lanes" }).waitFor();
    await page
      .locator("#flow-rows")
      .evaluate((rows) => (rows as unknown as { scrollIntoView(): void }).scrollIntoView());
    await page.locator("#flow-shown", { hasText: "10000 of 10000 flows" }).waitFor();
    expect(await page.locator("#flow-body tr").count()).toBeLessThan(60);
    // Everybody on the host has access.
    expect(await page.locator("#flow-body").textContent()).not.toContain("10.0.0.1");
    await page.locator("#flow-note", { hasText: "with a token" }).waitFor();
    expect(complaints).toEqual([]);
  });

  it("asks for the token and shows nothing without it", async () => {
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
