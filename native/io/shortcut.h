// Shortcuts: permissions to carry the datagrams of one flow between a UDP socket, or a device, and a stream without the caller.
// Nothing is decided here: the caller gives a shortcut if it would treat every datagram of the flow the same way, and ends the
// shortcut when that changes. For threads see loop.h.
//
// Out: datagrams that a socket receives from one address, at one local address, and that begin with a prefix, go to a stream as
// DATAGRAM capsules (RFC 9297 §3.5) of one context, without the prefix. In: DATAGRAM capsules of one context that a stream receives
// leave on a socket to one address, after a header. The bytes on the wire are those that the caller would write.
//
// For a device, out: UDP packets from one address to another with one DSCP, which are not fragments and have no options, and whose
// checksums are correct or left to the receiver; a USO packet counts as its datagrams. In: the packets that the caller would write,
// up to the MTU; a capsule that needs a larger packet goes to the caller.
//
// How a stream stays intact:
//
// 1. A capsule is written completely or not at all. If the system does not accept everything, the stream keeps the rest (at most
//    one batch) and writes it when it can. Until then, io_stream_write accepts nothing and calls `writable` after the rest, and
//    shortcuts leave their datagrams to the caller. If nothing was accepted, or the write failed, the caller gets all of them, and
//    its own write meets the same condition.
// 2. The caller finishes what it has begun: after a write that was not accepted completely, or that announced more, no shortcut
//    writes to that stream until a write of the caller is accepted completely and announces nothing.
// 3. Bytes of a stream belong to the caller unless it has declared that it is at the beginning of a capsule (io_shortcut_resume).
//    From there on, shortcuts consume only whole DATAGRAM capsules of their contexts. At the first byte of anything else, the rest
//    goes to the caller, and the stream is the caller's until it resumes. If the bytes that were read end with the beginning of a
//    capsule that may be a shortcut's, the stream keeps it (at most 2 KiB), and it precedes the next bytes that are read, whoever
//    gets them.
// 4. The end of a stream, and errors, go to the caller. A capsule that the end cuts off reaches the caller before the end; one that
//    an error cuts off is lost.
// 5. Datagrams of a flow that arrive together are not reordered: within one batch, a flow only changes from shortcut to caller.
//    After a packet that may belong to the flow but goes to the caller, such as a fragment, everything that the device has read
//    goes to the caller.
// 6. The caller resumes only after it has written to the device everything that it has from the stream.
//
// How nothing dangles: a shortcut refers to its socket or device and its stream by number; closing either, or the context, ends it
// within that call. No callback is called while datagrams are carried, so nothing can end meanwhile. A table has 4,096 places of
// fixed size; nothing is allocated for a datagram. A shortcut that has ended still counts until io_shortcut_counts has returned it;
// only then is its number free.
#ifndef UNDERPASS_IO_SHORTCUT_H
#define UNDERPASS_IO_SHORTCUT_H

#include "loop.h"

#define IO_SHORTCUTS 4096
// Limit of a prefix or header: a SOCKS5 header with an IPv6 address (RFC 1928 §7).
#define IO_SHORTCUT_HEADER_BYTES 22
// io_shortcut_counts ends a shortcut after the first time without a datagram, so that idle flows do not fill the table; and after the
// second when three quarters of its places are taken, so that flows with hardly any datagrams do not keep others out.
#define IO_SHORTCUT_IDLE_MS 10000
#define IO_SHORTCUT_CROWDED_IDLE_MS 1000

typedef struct io_shortcut_flow {
  // Number of a UDP socket.
  int32_t socket;
  // The remote address, without a scope, and the number of the local address, as in rows.
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

// Both return a number, or -1 if the table is full, or the socket, the stream or another member is not valid. An existing shortcut
// for the same datagrams (socket, addresses and prefix), or the same capsules (stream and context), ends. If several prefixes match
// a datagram, the longest counts.
int32_t io_shortcut_out(io_loop *loop, const io_shortcut_flow *flow);
int32_t io_shortcut_in(io_loop *loop, const io_shortcut_flow *flow);

typedef struct io_shortcut_packets {
  // A device for which io_tun_shortcuts has permitted shortcuts.
  int device;
  // The addresses of the application and of the other end, both without a scope.
  const uint8_t *source, *remote;
  size_t address_bytes;
  // For packets out, 0 to 63.
  int dscp;
  int stream;
  // 0 to INT32_MAX.
  int32_t context;
} io_shortcut_packets;

// The same for packets of a device. Not on Windows: -1.
int32_t io_shortcut_packets_out(io_loop *loop, const io_shortcut_packets *flow);
int32_t io_shortcut_packets_in(io_loop *loop, const io_shortcut_packets *flow);

// Ends all shortcuts of a stream. Bytes that the stream keeps precede the next bytes that `read` gets.
void io_shortcut_end(io_loop *loop, int stream);

// Declares that everything that `read` of this stream got ended at the end of a capsule and has been handled: shortcuts may read
// on, until `read` is called with bytes again.
void io_shortcut_resume(io_loop *loop, int stream);

// A row of counts: number; datagrams and bytes of payload since the last row; milliseconds since the last datagram; bytes of its
// payload; 1 if it has ended, otherwise 0; packets of a device that contained the datagrams, otherwise 0.
#define IO_SHORTCUT_COUNT_NUMBERS 7

// Writes rows for shortcuts with something new, as many as fit. Returns how many; call it again until that is 0.
int32_t io_shortcut_counts(io_loop *loop, double *rows, int32_t capacity);

#endif
