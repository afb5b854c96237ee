// Shortcuts: permits to carry the datagrams of one flow between a UDP socket, or a device, and a stream without the caller. Nothing is decided here:
// the caller gives a shortcut where it would do the same with every datagram of the flow, and ends it when that changes. For threads see
// loop.h.
//
// Out: datagrams that a socket receives from one address, at one local address, and that begin with a prefix, go to a stream as DATAGRAM
// capsules (RFC 9297 §3.5) of one context, without the prefix. In: DATAGRAM capsules of one context that a stream receives leave on a
// socket to one address, behind a header. On the wire nothing differs from what the caller writes.
//
// Of a device, out: UDP packets from one address to another with one DSCP, which are neither fragments nor have options, and whose
// checksums are right or the receiver's to complete; USO packets as the datagrams that they consist of. In: the packets that the caller
// would write, up to the MTU; a capsule that needs a larger one is the caller's.
//
// How a stream stays whole:
//
// 1. A capsule is written completely or not at all. Of what the system does not accept completely, the stream keeps the rest (at most
//    one batch) and writes it when it can. Until then, io_stream_write takes nothing and calls `writable` behind the rest, and shortcuts
//    leave their datagrams to the caller. If nothing was accepted, or the write failed, all are the caller's, whose own write meets that.
// 2. What the caller has begun it finishes: after a write that was not accepted completely, or that is said to have more behind it, no
//    shortcut writes to that stream until a write of the caller has been accepted completely and has nothing behind it.
// 3. Bytes of a stream belong to the caller unless it has said that it stands at the beginning of a capsule (io_shortcut_resume). From
//    there on shortcuts consume whole DATAGRAM capsules of their contexts, and nothing else: at the first byte of anything else the rest
//    goes to the caller, and the stream is the caller's until it resumes. The beginning of a capsule that may be a shortcut's, at the end
//    of what was read, is kept by the stream (at most 2 KiB) and comes first in what is read next, whoever gets that.
// 4. The end of a stream, and errors, are the caller's. A capsule that is cut by the end comes to the caller before the end; one that is
//    cut by an error is gone.
// 5. Datagrams of a flow that arrive together are not reordered: within one batch a flow only goes over from shortcut to caller. Behind
//    a packet that may be of the flow, but is the caller's, such as a fragment, all that the device has read is the caller's.
// 6. The caller resumes only when it has written to the device what it has of the stream.
//
// How nothing dangles: a shortcut refers to its socket or device and its stream by number; closing either, or the context, ends it within that call. No
// callback is called while datagrams are carried, so that nothing can end meanwhile. A table has 4,096 places, of fixed size; nothing is
// allocated for a datagram. What has ended is counted still, until io_shortcut_counts has returned it; only then is its number free.
#ifndef UNDERPASS_IO_SHORTCUT_H
#define UNDERPASS_IO_SHORTCUT_H

#include "loop.h"

#define IO_SHORTCUTS 4096
// Of a prefix or header: a SOCKS5 header with an IPv6 address (RFC 1928 §7).
#define IO_SHORTCUT_HEADER_BYTES 22
// After so long without a datagram io_shortcut_counts ends one, so that idle flows do not fill the table; and when three quarters of its
// places are taken, so that flows with hardly any datagrams do not keep others out.
#define IO_SHORTCUT_IDLE_MS 10000
#define IO_SHORTCUT_CROWDED_IDLE_MS 1000

typedef struct io_shortcut_flow {
  // Number of a UDP socket.
  int32_t socket;
  // Of a remote, without a scope; and the number of the local address, as rows have it.
  const uint8_t *address;
  size_t address_bytes;
  int32_t local;
  // The prefix, or the header.
  const uint8_t *header;
  size_t header_bytes;
  int stream;
  // 0 to INT32_MAX.
  int32_t context;
} io_shortcut_flow;

// Both return a number, or -1: the table is full, or the socket, the stream or another member is not valid. One for the same datagrams
// (socket, addresses and prefix), or the same capsules (stream and context), ends. If several prefixes begin a datagram, the longest
// counts.
int32_t io_shortcut_out(io_loop *loop, const io_shortcut_flow *flow);
int32_t io_shortcut_in(io_loop *loop, const io_shortcut_flow *flow);

typedef struct io_shortcut_packets {
  // One that io_tun_shortcuts permits shortcuts of.
  int device;
  // The application's address and the other end's, both without a scope.
  const uint8_t *source, *remote;
  size_t address_bytes;
  // Of packets out, 0 to 63.
  int dscp;
  int stream;
  // 0 to INT32_MAX.
  int32_t context;
} io_shortcut_packets;

// The same for packets of a device. Not on Windows: -1.
int32_t io_shortcut_packets_out(io_loop *loop, const io_shortcut_packets *flow);
int32_t io_shortcut_packets_in(io_loop *loop, const io_shortcut_packets *flow);

// Ends all of a stream. Bytes that it keeps come first in what `read` of the stream gets next.
void io_shortcut_end(io_loop *loop, int stream);

// All that `read` of this stream has got ended at the end of a capsule and has been handled: shortcuts may read on, until `read` is
// called with bytes again.
void io_shortcut_resume(io_loop *loop, int stream);

// A row of counts: number; datagrams and bytes of payload since the last row; milliseconds since the last datagram; bytes of its payload;
// 1 if it has ended, else 0; packets of a device that the datagrams were in, else 0.
#define IO_SHORTCUT_COUNT_NUMBERS 7

// Fills in those with something new, as many as fit. Returns how many; to be called again until that is 0.
int32_t io_shortcut_counts(io_loop *loop, double *rows, int32_t capacity);

#endif
