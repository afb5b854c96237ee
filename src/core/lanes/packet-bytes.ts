/** Size of a full packet in bytes, for limits that allow for a number of packets. Paths carry 1,280 or more (RFC 8200 §5). */
export const PACKET_BYTES = 1_250;
