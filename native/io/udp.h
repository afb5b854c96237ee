// The UDP sockets of one context, in batches. Everything that arrives in one turn of the loop is reported in one call, as rows over
// one arena. Datagrams to send are rows over one buffer, and leave in as few system calls as there are sockets: runs of equal size
// to one destination as one segmented send, the rest by sendmmsg (Linux; singly elsewhere). For threads, callbacks and `released`
// see loop.h.
#ifndef UNDERPASS_IO_UDP_H
#define UNDERPASS_IO_UDP_H

#include "loop.h"

// Sizes of io_udp_memory.
#define IO_UDP_SLOTS 64
#define IO_UDP_SLOT_BYTES 65536
// Not a power of two, so that slots do not all begin on the same cache lines.
#define IO_UDP_SLOT_STRIDE (IO_UDP_SLOT_BYTES + 21 * 64)
#define IO_UDP_ARENA_BYTES (IO_UDP_SLOTS * IO_UDP_SLOT_STRIDE)
#define IO_UDP_RECEIVE_ROWS (IO_UDP_SLOTS * 128)
#define IO_UDP_RECEIVE_ROW_INTS 6
#define IO_UDP_ADDRESSES_BYTES (IO_UDP_SLOTS * 19)
#define IO_UDP_ERROR_ROWS 128
#define IO_UDP_ERROR_ROW_INTS 9
// Limit of rows for io_udp_send.
#define IO_UDP_MAX_SEND_ROWS 4096
#define IO_UDP_SEND_ROW_INTS 7

// Memory that the caller lends until `released`; only the used part is touched. Its contents are valid while `received` or `errors`
// is called, and only until that returns.
typedef struct io_udp_memory {
  // IO_UDP_ARENA_BYTES
  uint8_t *arena;
  // IO_UDP_RECEIVE_ROWS rows of: socket, offset in the arena, length, offset in the addresses, length of the address, number of the
  // local address. Consecutive rows with the same source and local address have the same offset in the addresses.
  int32_t *rows;
  // IO_UDP_ADDRESSES_BYTES
  uint8_t *addresses;
  // IO_UDP_ERROR_ROWS rows of: socket (-1 if it has been closed), kind (IO_UDP_UNREACHABLE_…), MTU or 0, length of the address;
  // then the address, in 20 bytes.
  int32_t *errors;
} io_udp_memory;

// Why a datagram did not get through, as on the wire.
enum {
  IO_UDP_UNREACHABLE_PORT,
  IO_UDP_UNREACHABLE_HOST,
  IO_UDP_UNREACHABLE_PROHIBITED,
  IO_UDP_UNREACHABLE_TOO_BIG
};

typedef struct io_udp_callbacks {
  // `count` rows have been received. May be called more than once per turn. If a socket is closed within the call, rows of it may
  // follow in the same batch, but not in later ones.
  void (*received)(void *user_data, int32_t count);
  // At the end of a turn: `count` rows of errors.
  void (*errors)(void *user_data, int32_t count);
  void (*released)(void *user_data);
} io_udp_callbacks;

// Call this once per context, before any other call here; a second call returns UV_EALREADY. The setup lasts until the context
// ends.
int io_udp_setup(io_loop *loop, const io_udp_memory *memory, const io_udp_callbacks *callbacks, void *user_data);

typedef struct io_udp_options {
  // Address to bind, which may be scoped.
  const uint8_t *address;
  size_t address_bytes;
  // UV_ENOTSUP on Windows.
  bool reuse_port;
  // Numbers the local addresses that datagrams arrive at, up to 255 of them; others, and all on Windows, are 0.
  bool tells_locals;
  // Buffers of the socket; the system may grant less.
  int receive_bytes, send_bytes;
} io_udp_options;

// Opens and binds a socket. Returns its number, which is reused only in a later turn of the loop, or a system error.
int32_t io_udp_open(io_loop *loop, const io_udp_options *options);

// The same with a bound UDP socket that the process was given. The context then owns it; after an error it is left alone. The
// address in `options` and `reuse_port` are not used. Not on Windows: UV_ENOTSUP.
int32_t io_udp_adopt(io_loop *loop, int descriptor, const io_udp_options *options);

// Returns another descriptor of a socket, which the caller owns and which outlives the socket, or a system error. Not on Windows:
// UV_ENOTSUP.
int io_udp_descriptor(io_loop *loop, int32_t socket);

// Closes a socket. Datagrams that still wait for the system are dropped.
void io_udp_close(io_loop *loop, int32_t socket);

// Enables reports of datagrams that did not get through: ICMP errors and missing routes. Linux only, else UV_ENOTSUP.
int io_udp_tell_errors(io_loop *loop, int32_t socket);

// Drops datagrams that would have to be fragmented, here or on their way. Linux only, otherwise UV_ENOTSUP.
int io_udp_forbid_fragments(io_loop *loop, int32_t socket);

// Sets the class of a socket (IO_LATENCY_…). Linux only, else UV_ENOTSUP.
int io_udp_latency(io_loop *loop, int32_t socket, int latency);

// Sets the DSCP of what a socket sends from now on, 0 to 63, with ECN 0. Not on Windows: UV_ENOTSUP.
int io_udp_dscp(io_loop *loop, int32_t socket, int dscp);

// Restricts a socket to an interface or gives it a mark; "" and 0 for none. Not on Windows: UV_ENOTSUP.
int io_udp_restrict(io_loop *loop, int32_t socket, const char *interface_name, uint32_t mark);

// The port that a socket is bound to; 0 if it is not open.
int io_udp_port(io_loop *loop, int32_t socket);

// Size of the receive buffer, as the system counts it.
int io_udp_receive_buffer(io_loop *loop, int32_t socket);

// Datagrams to send; each is a header, if its length is not 0, and data. Only read during the call.
typedef struct io_udp_batch {
  // Rows of: socket, offset in the headers, length of the header, offset in the data, length, offset in the addresses, number of
  // the local address to send from; 0, or an address that the machine no longer has, leaves the choice to routing.
  const int32_t *rows;
  int32_t count;
  const uint8_t *data;
  size_t data_bytes;
  const uint8_t *headers;
  size_t header_bytes;
  const uint8_t *addresses;
  size_t address_bytes;
} io_udp_batch;

// Sends them, and copies what the system does not accept at once. Rows that are not valid are dropped. Returns how many datagrams
// were dropped, now or since the last call, or UV_EINVAL if `count` is not between 0 and IO_UDP_MAX_SEND_ROWS.
int64_t io_udp_send(io_loop *loop, const io_udp_batch *batch);

// The number of rows of errors that have not been reported; the caller then reports them. Call this after a send with drops,
// because `errors` is only called when the loop wakes up.
int32_t io_udp_errors(io_loop *loop);

// Why datagrams were dropped.
enum {
  IO_UDP_COUNT_REFUSED,     // an ICMP error that an earlier datagram brought
  IO_UDP_COUNT_TOO_LONG,    // longer than the path allows
  IO_UDP_COUNT_NO_BUFFERS,  // the system had no memory for it
  IO_UDP_COUNT_OVERFLOW,    // too much waited for the socket already
  IO_UDP_COUNT_FAILED,      // any other reason
  IO_UDP_COUNT_UNTOLD,      // errors, not datagrams, that were too many to report
  IO_UDP_COUNTS
};

// Fills in the counts since the start.
void io_udp_counts(io_loop *loop, double counts[IO_UDP_COUNTS]);

#endif
