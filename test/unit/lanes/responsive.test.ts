import { describe, expect, it } from "vitest";
import { FlowTable } from "../../../src/core/lanes/flow-table.ts";
import { isResponsive, noteSent, wantsOrder } from "../../../src/core/lanes/responsive.ts";

const FLOW = 3;
const FULL = 1_200;

function datagram(length: number, ...first: number[]): Uint8Array {
  const data = new Uint8Array(length);
  data.set(first);
  return data;
}

/** Datagrams as QUIC's, whose first bytes are as good as random. */
const QUIC = Array.from({ length: 100 }, (_, i) => datagram(FULL, 0x50 + ((i * 7) % 16)));
const WIREGUARD = datagram(1_232, 4, 0, 0, 0);
const RTP = datagram(FULL, 0x80);
const TURN = datagram(FULL, 0x40, 1);

/** Receives datagrams a millisecond apart. @returns whether the last of them wants order */
function receive(flows: FlowTable, all: readonly Uint8Array[], count: number): boolean {
  let wants = false;
  for (let i = 0; i < count; i++) {
    const data = all[i % all.length];
    wants = wantsOrder(1_000 + i, flows, FLOW, data, 0, data.length);
  }
  return wants;
}

function isResponsiveTo(...sent: Uint8Array[]): boolean {
  const flows = new FlowTable();
  flows.reserve(FLOW);
  for (const data of sent) noteSent(flows, FLOW, data, 0, data.length);
  return isResponsive(flows, FLOW);
}

const twenty = (data: Uint8Array) => Array.from({ length: 20 }, () => data);

describe("flows that need order", () => {
  it("are those of QUIC, after a dozen datagrams", () => {
    expect(receive(new FlowTable(), QUIC, 6)).toBe(false);
    expect(receive(new FlowTable(), QUIC, 20)).toBe(true);
  });

  it.each([
    ["WireGuard", [WIREGUARD]],
    ["RTP", [RTP]],
    ["a TURN channel", [TURN]],
    ["QUIC that sends little", QUIC.map((data) => data.subarray(0, 40))],
    ["something that always begins with the same byte", [datagram(FULL, 0x5a)]],
    ["datagrams without a byte", [new Uint8Array(0)]],
  ])("are not those of %s", (_, data) => {
    expect(receive(new FlowTable(), data, 200)).toBe(false);
  });

  it("are forgotten with the flow", () => {
    const flows = new FlowTable();
    receive(flows, QUIC, 20);
    flows.forget(FLOW);
    expect(receive(flows, QUIC, 6)).toBe(false);
  });

  it("end when other datagrams arrive", () => {
    const flows = new FlowTable();
    receive(flows, QUIC, 20);
    expect(receive(flows, [RTP], 3)).toBe(false);
  });
});

describe("responsive flows", () => {
  it("are those of QUIC and WireGuard", () => {
    expect(isResponsiveTo(...QUIC)).toBe(true);
    expect(isResponsiveTo(...twenty(datagram(FULL, 0x5a)))).toBe(false);
    expect(isResponsiveTo(...twenty(WIREGUARD))).toBe(true);
  });

  it("are not those of media, or of traffic that looks like WireGuard at times", () => {
    expect(isResponsiveTo(...twenty(RTP))).toBe(false);
    expect(isResponsiveTo(...twenty(TURN))).toBe(false);
    expect(isResponsiveTo(...twenty(datagram(1_233, 4, 0, 0, 0)))).toBe(false);
    const mixed = Array.from({ length: 100 }, (_, i) => (i % 4 === 0 ? RTP : QUIC[i]));
    expect(isResponsiveTo(...mixed)).toBe(false);
  });
});
