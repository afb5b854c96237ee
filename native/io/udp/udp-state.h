// The parts of a context's UDP that its files share. The functions io_udp_system_… differ between systems; they are in udp-linux.c,
// udp-bsd.c (also for macOS) and udp-windows.c.
#ifndef UNDERPASS_IO_UDP_STATE_H
#define UNDERPASS_IO_UDP_STATE_H

#include "../address.h"
#include "../loop/latency.h"
#include "../loop/loop-state.h"
#include "../socket/socket.h"
#include "../udp.h"

#define SEND_MESSAGES 64
#define SEND_PARTS 1024
// Limit of segments in one send; older kernels refuse more.
#define SEND_SEGMENTS 64
// Over IPv6; for IPv4 the system refuses the last 20 bytes.
#define MAX_PAYLOAD 65527
// Limit of all segments of one send together.
#define MAX_SEGMENTED 65487
// Local addresses that one socket distinguishes.
#define MAX_LOCALS 255
// How often a failed call is repeated, because it may only have reported errors of earlier datagrams.
#define NEWS_TRIES 2
#define NONE (-1)

// A local address.
typedef struct local_address {
  // IPv4 uses the first 4 bytes.
  uint8_t bytes[16];
  // Interface of a link-local address, otherwise 0.
  uint32_t interface_index;
  // Sending from it failed, and nothing has arrived at it since.
  bool is_gone;
} local_address;

// Numbers start at 1; 0 means the address that routing chooses.
typedef struct local_table {
  int32_t count;
  // Number of the most recent address.
  int32_t last;
  local_address addresses[MAX_LOCALS];
} local_table;

struct pending;

typedef struct udp_socket {
  uv_poll_t poll;
  struct udp *udp;
  int32_t id;
  uv_os_sock_t fd;
  int family;
  int latency;
  // Set while it is held in bulk.
  held held;
  bool is_closing;
  // True if errors for its datagrams are reported. Calls then also fail with them.
  bool tells_errors;
  // Largest datagram that is sent as a segment of a longer send; 0 if the system does not support that.
  size_t segment_limit;
  // Rows of the batch that is being sent.
  int32_t first_row, last_row;
  // Messages that the system did not accept at once.
  struct pending *first_pending, *last_pending;
  size_t pending_bytes;
  // NULL for a socket that does not distinguish them.
  local_table *locals;
  // Shortcuts of this socket; the outgoing ones, and one bit for each length of their prefixes.
  int32_t shortcuts, shortcuts_out;
  uint32_t prefix_lengths;
  // The interface for link-local addresses; 0 if the socket itself or a local address determines it.
  uint32_t scope_id;
} udp_socket;

// One send of one or more datagrams to one destination.
typedef struct message {
  struct sockaddr_storage to;
  socklen_t to_length;
  int32_t address_offset;
  int32_t local;
  size_t first_part, part_count;
  size_t segments, segment_bytes, last_bytes, bytes;
} message;

typedef struct part {
  const uint8_t *data;
  size_t length;
} part;

// The arguments of a system call, prepared once.
struct system_messages;

typedef struct udp {
  io_loop *loop;
  io_udp_memory memory;
  const io_udp_callbacks *callbacks;
  void *user_data;
  int32_t row_count;
  int32_t slot_count;
  int32_t error_count;
  uv_check_t check;
  udp_socket **sockets;
  int32_t socket_capacity;
  int32_t *free_ids;
  int32_t free_count;
  int32_t used_ids;
  // Sockets and the check handle; the memory is freed with the last one.
  int32_t open_handles;
  double counts[IO_UDP_COUNTS];
  // Datagrams that were kept and failed later, and are not reported yet.
  size_t late_drops;
  // In the batch being sent: the next row of the same socket after each row, and the sockets in order.
  int32_t next_row[IO_UDP_MAX_SEND_ROWS];
  int32_t order[IO_UDP_MAX_SEND_ROWS];
  message messages[SEND_MESSAGES];
  part parts[SEND_PARTS];
  struct system_messages *system;
} udp;

// NULL if no socket has that number.
udp_socket *io_udp_socket_of(io_loop *loop, int32_t id);

// Watches for the events that the socket needs.
void io_udp_watch(udp_socket *socket);
void io_udp_on_ready(uv_poll_t *poll, int status, int events);

// receive.c
void io_udp_deliver(udp *udp);
// Adds a received message as rows, one per datagram. `address_offset`: that of the previous message, or NONE.
void io_udp_add_message(udp_socket *socket, int32_t slot, size_t length, size_t segment_bytes,
                        const struct sockaddr_storage *from, int32_t local, int32_t *address_offset);
// Reads what has arrived. A bulk socket that had something, but not more than one read takes, is then held.
void io_udp_read_all(udp_socket *socket);
void io_udp_resume(held *held);

// send.c
// Sends one message from the address with that number, or from any if the machine no longer has it. Returns 0, or a negative
// system error.
int io_udp_send_from(udp_socket *socket, const struct sockaddr_storage *to, socklen_t to_length, const part *parts,
                     size_t part_count, size_t segment_bytes, int32_t number);
void io_udp_send_pending(udp_socket *socket);
void io_udp_drop_pending(udp_socket *socket);

// errors.c
// Reports that a datagram did not reach `to` (does nothing for kind NONE); consecutive repetitions are reported once.
void io_udp_add_error(udp_socket *socket, const struct sockaddr_storage *to, int kind, uint32_t mtu);
// The kind of a send error that concerns its own datagram; NONE for others, which do not matter to the sender.
int io_udp_kind_of_error(int error);
// True if a call on this socket may have failed because of earlier datagrams.
bool io_udp_is_news(const udp_socket *socket, int error);
// Counts datagrams whose send has failed permanently.
void io_udp_count_failure(udp_socket *socket, const struct sockaddr_storage *to, int error, size_t datagrams);

// locals.c
// The number of a local address, assigned when it is first seen; 0 when there are too many.
int32_t io_udp_number_local(local_table *locals, const uint8_t *bytes, size_t length, uint32_t interface_index);
// The address to send from; NULL to let routing choose.
local_address *io_udp_local_of(const udp_socket *socket, int32_t number);

// The parts that differ between systems.
// Sets up `system`, which may stay NULL. Returns 0, or a negative system error.
int io_udp_system_begin(udp *udp);
void io_udp_system_end(udp *udp);
// Sets the options of a new socket.
void io_udp_system_opened(udp_socket *socket);
// Makes a socket receive the local address of each message. Without the table all numbers are 0.
void io_udp_system_tell_locals(udp_socket *socket);
// Requests a buffer size.
void io_udp_system_set_buffer(uv_os_sock_t socket, bool is_receive, int bytes);
// Reads once into the free slots, of which there is at least one. Returns true if more may be waiting.
bool io_udp_system_receive(udp_socket *socket);
// Removes errors from the socket that would make it ready again and again. Returns false if there are none to remove: the socket
// itself has failed.
bool io_udp_system_read_errors(udp_socket *socket);
// Sends one message unchanged. Returns 0, or a negative system error.
int io_udp_system_send_once(udp_socket *socket, const struct sockaddr_storage *to, socklen_t to_length, const part *parts,
                            size_t part_count, size_t segment_bytes, const local_address *local);
// Prepares `udp->messages` for io_udp_system_send.
void io_udp_system_prepare(udp_socket *socket, size_t count);
// Sends the messages from `first` to `count`. Returns how many were sent, at least 1, or a negative system error of the first.
int io_udp_system_send(udp_socket *socket, size_t first, size_t count);

#endif
