import { describe, expect, it } from "vitest";
import { formatAddress } from "../../../src/wire/socket-address.ts";
import { CHANGE_IP, CHANGE_PORT, decodeBindingAnswer, encodeBindingRequest } from "../../../src/wire/stun.ts";

const hex = (text: string) => Uint8Array.from(Buffer.from(text.replace(/\s/g, ""), "hex"));
const TRANSACTION = hex("b7e7a701bc34d686fa87dfae");

/** The responses of RFC 5769 §2.2 and §2.3, without MESSAGE-INTEGRITY and FINGERPRINT. */
const IPV4 = "0101 0010 2112a442 b7e7a701bc34d686fa87dfae 8022 000b 74657374 20766563 746f7220";
const answer = (attributes: string) => {
  const body = hex(attributes);
  return Uint8Array.of(1, 1, 0, body.length, 0x21, 0x12, 0xa4, 0x42, ...TRANSACTION, ...body);
};

describe("STUN", () => {
  it("encodes a Binding request, and the requested source of the answer (RFC 5780 §7.2)", () => {
    expect(encodeBindingRequest(TRANSACTION, 0)).toEqual(hex("0001 0000 2112a442 b7e7a701bc34d686fa87dfae"));
    expect(encodeBindingRequest(TRANSACTION, CHANGE_IP | CHANGE_PORT)).toEqual(
      hex("0001 0008 2112a442 b7e7a701bc34d686fa87dfae 0003 0004 00000006"),
    );
  });

  it("reads XOR-MAPPED-ADDRESS of both families (RFC 5769)", () => {
    const ipv4 = decodeBindingAnswer(answer("8022000b7465737420766563746f7220 0020 0008 0001a147e112a643"))!;
    expect(formatAddress(ipv4.mapped)).toBe("192.0.2.1:32853");
    expect(ipv4.transaction).toEqual(TRANSACTION);
    expect(ipv4.other).toBeUndefined();
    const ipv6 = decodeBindingAnswer(answer("0020 0014 0002a147 0113a9faa5d3f179bc25f4b5bed2b9d9"))!;
    expect(formatAddress(ipv6.mapped)).toBe("[2001:db8:1234:5678:11:2233:4455:6677]:32853");
  });

  it("prefers it to MAPPED-ADDRESS, and reads OTHER-ADDRESS", () => {
    const text = "0001 0008 00010001 0a000001 0020 0008 0001a147e112a643 802c 0008 00010d97 c6336402";
    const { mapped, other } = decodeBindingAnswer(answer(text))!;
    expect([formatAddress(mapped), formatAddress(other!)]).toEqual(["192.0.2.1:32853", "198.51.100.2:3479"]);
  });

  it("accepts nothing that is truncated, of another kind, or without an address", () => {
    const whole = answer("0020 0008 0001a147e112a643");
    expect(decodeBindingAnswer(whole)).toBeDefined();
    for (let end = 0; end < whole.length; end++) {
      expect(decodeBindingAnswer(whole.subarray(0, end))).toBeUndefined();
    }
    expect(decodeBindingAnswer(hex(IPV4).fill(0, 4, 8))).toBeUndefined();
    expect(decodeBindingAnswer(answer("8022000b7465737420766563746f7220"))).toBeUndefined();
    expect(decodeBindingAnswer(answer("0020 000c 0001a147e112a643"))).toBeUndefined();
    expect(decodeBindingAnswer(encodeBindingRequest(TRANSACTION, 0))).toBeUndefined();
  });
});
