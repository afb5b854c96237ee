#include "../tcp-stack.h"

#include <uv/errno.h>

#ifdef UNDERPASS_LWIP

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "flow.h"
#include "lock.h"

#define MIN_MTU 576
#define MIN_MEMORY_BYTES (128 * 1024)
// Rows that one flow may produce at once: accepted, bytes twice, ended, writable, closed.
#define FLOW_EVENTS 6
// Limit of a flow's bytes in one row, so that other flows get their turn.
#define CHUNK_BYTES (256 * 1024)
// A flow with less room than this counts as full: bytes that are already being read from the other connection still fit.
#define FULL_BYTES (256 * 1024)
// Limit of ticks to catch up after a stack was not called for long.
#define MAX_TICKS_AT_ONCE 8

io_tcp_stack *stack_current;

void stack_enter(io_tcp_stack *stack, double now_ms) {
  stack_lock();
  stack_current = stack;
  if (now_ms > stack->now_ms) stack->now_ms = now_ms;
  // 0 means none in lwIP.
  stack->ticks = (uint32_t)(uint64_t)(stack->now_ms / LWIP_TICK_MS) + 1;
  tcp_ticks = stack->ticks;
}

void stack_leave(void) {
  stack_current = NULL;
  stack_unlock();
}

static err_t on_accepted(void *argument, struct tcp_pcb *pcb, err_t error) {
  (void)argument;
  if (pcb == NULL || error != ERR_OK) return ERR_OK;
  flow *flow = stack_current->selected;
  flow->was_accepted = true;
  flow_ready(stack_current, flow);
  return ERR_OK;
}

bool io_tcp_stack_is_there(void) {
  return true;
}

int io_tcp_stack_create(const io_tcp_stack_options *options, const io_tcp_stack_memory *memory, io_tcp_stack **result) {
  bool is_valid = options->mtu >= MIN_MTU && options->max_flows > 0 && options->max_flows <= INT32_MAX &&
                  memory->packet_bytes >= MIN_MEMORY_BYTES && memory->packet_bytes <= INT32_MAX && memory->capacity > 0 &&
                  memory->capacity <= INT32_MAX && memory->received_bytes >= MIN_MEMORY_BYTES &&
                  memory->received_bytes <= INT32_MAX && memory->event_capacity >= FLOW_EVENTS;
  if (!is_valid) return UV__EINVAL;
  io_tcp_stack *stack = calloc(1, sizeof *stack);
  if (stack == NULL) return UV__ENOMEM;
  stack->options = *options;
  if (stack->options.mtu > IO_TCP_STACK_MAX_MTU) stack->options.mtu = IO_TCP_STACK_MAX_MTU;
  stack->memory = *memory;
  stack->last_ticks = 1;
  struct tcp_pcb_listen *listener = &stack->listener;
  listener->state = LISTEN;
  listener->accept = on_accepted;
  listener->prio = TCP_PRIO_NORMAL;
  listener->ttl = TCP_TTL;
  IP_SET_TYPE_VAL(listener->local_ip, IPADDR_TYPE_ANY);
  ip_layer_open(stack);
  *result = stack;
  return 0;
}

// Ends a connection now; lwIP and everything else forget it.
static void drop(io_tcp_stack *stack, flow *flow, bool has_reset) {
  flow_select(stack, flow);
  if (flow->pcb != NULL) {
    tcp_err(flow->pcb, NULL);
    tcp_abandon(flow->pcb, has_reset ? 1 : 0);
  }
  flow_deselect(stack);
  flow_free(stack, flow);
}

void io_tcp_stack_free(io_tcp_stack *stack) {
  stack_enter(stack, 0);
  for (uint32_t i = 0; i < stack->flow_capacity; i++) {
    if (stack->flows[i] != NULL) drop(stack, stack->flows[i], false);
  }
  stack_leave();
  heap_close(stack);
  free(stack->flows);
  free(stack);
}

int64_t io_tcp_stack_write(io_tcp_stack *stack, double now_ms, uint32_t number, const uint8_t *bytes, size_t length) {
  flow *flow = flow_of(stack, number);
  if (flow == NULL || flow->pcb == NULL || flow->is_detached) return UV__EPIPE;
  enum tcp_state state = flow->pcb->state;
  if (state != ESTABLISHED && state != CLOSE_WAIT) return UV__EPIPE;
  stack_enter(stack, now_ms);
  flow_select(stack, flow);
  struct tcp_pcb *pcb = flow->pcb;
  size_t written = 0;
  while (written < length) {
    size_t part = length - written, room = pcb->snd_buf;
    if (part > room) part = room;
    if (part > 0xffff) part = 0xffff;
    if (part == 0 || !heap_has_room(stack, part)) break;
    err_t error = tcp_write(pcb, bytes + written, (u16_t)part, TCP_WRITE_FLAG_COPY);
    if (error != ERR_OK && part > pcb->mss) {
      // All of the data may need too many buffers.
      part = pcb->mss;
      error = tcp_write(pcb, bytes + written, (u16_t)part, TCP_WRITE_FLAG_COPY);
    }
    if (error != ERR_OK) break;
    written += part;
  }
  bool has_room = pcb->snd_buf >= FULL_BYTES && pcb->snd_queuelen <= TCP_SND_QUEUELEN / 4 * 3 && heap_has_room(stack, FULL_BYTES);
  flow->wants_to_write = written < length || !has_room;
  tcp_output(pcb);
  flow_deselect(stack);
  stack_leave();
  return (int64_t)written;
}

bool io_tcp_stack_is_full(const io_tcp_stack *stack, uint32_t number) {
  const flow *flow = flow_of(stack, number);
  return flow != NULL && flow->wants_to_write;
}

void io_tcp_stack_end(io_tcp_stack *stack, double now_ms, uint32_t number) {
  flow *flow = flow_of(stack, number);
  if (flow == NULL || flow->pcb == NULL || flow->is_detached) return;
  stack_enter(stack, now_ms);
  flow_select(stack, flow);
  // lwIP measures the time in LAST-ACK from the last segment that arrived.
  flow->pcb->tmr = stack->ticks;
  tcp_shutdown(flow->pcb, 0, 1);
  flow_deselect(stack);
  stack_leave();
}

void io_tcp_stack_pause(io_tcp_stack *stack, uint32_t number, bool is_paused) {
  flow *flow = flow_of(stack, number);
  if (flow == NULL) return;
  flow->is_paused = is_paused;
  bool has_news = flow->gathered > 0 || flow->first_held != NULL || (flow->has_ended && !flow->has_told_end) || flow->is_closed;
  if (!is_paused && has_news) flow_ready(stack, flow);
}

void io_tcp_stack_close(io_tcp_stack *stack, double now_ms, uint32_t number) {
  flow *flow = flow_of(stack, number);
  if (flow == NULL || flow->is_detached) return;
  flow->is_detached = true;
  stack_enter(stack, now_ms);
  flow_ready(stack, flow);
  if (flow->pcb != NULL) {
    flow_select(stack, flow);
    flow->pcb->tmr = stack->ticks;
    // With unread bytes, this sends a RST.
    tcp_close(flow->pcb);
    flow_deselect(stack);
  }
  flow_discard(stack, flow);
  stack_leave();
}

void io_tcp_stack_drop(io_tcp_stack *stack, uint32_t number, bool has_reset) {
  flow *flow = flow_of(stack, number);
  if (flow == NULL) return;
  stack_enter(stack, 0);
  drop(stack, flow, has_reset);
  stack_leave();
}

static void tick(io_tcp_stack *stack, flow *flow) {
  uint32_t count = flow->list == LIST_TICKING ? stack->ticks - flow->ticked : 1;
  if (count > MAX_TICKS_AT_ONCE) count = MAX_TICKS_AT_ONCE;
  flow->ticked = stack->ticks;
  flow_select(stack, flow);
  for (uint32_t i = 0; i < count; i++) {
    struct tcp_pcb *pcb = tcp_active_pcbs != NULL ? tcp_active_pcbs : tcp_tw_pcbs;
    if (pcb == NULL) break;
    lwip_tick(pcb, stack->ticks);
    if (tcp_active_pcbs != NULL && (tcp_active_pcbs->flags & TF_CLOSEPEND) != 0) tcp_fasttmr();
  }
  flow_deselect(stack);
  bool has_room = flow->pcb != NULL && flow->wants_to_write && flow->pcb->snd_buf >= TCP_SND_BUF / 2 &&
                  flow->pcb->snd_queuelen <= TCP_SND_QUEUELEN / 2 && heap_has_room(stack, TCP_SND_BUF / 2);
  if (!has_room) return;
  flow->wants_to_write = false;
  flow->is_writable = true;
  flow_ready(stack, flow);
}

void io_tcp_stack_handle_timeout(io_tcp_stack *stack, double now_ms) {
  stack_enter(stack, now_ms);
  flow *next = stack->ticks != stack->last_ticks ? stack->heads[LIST_TICKING] : NULL, *last = stack->tails[LIST_TICKING];
  stack->last_ticks = stack->ticks;
  while (next != NULL) {
    flow *flow = next;
    next = flow == last ? NULL : flow->next;
    tick(stack, flow);
  }
  for (flow_list list = LIST_IDLE; list < LISTS; list++) {
    for (flow *head = stack->heads[list]; head != NULL && head->due_ms <= stack->now_ms; head = stack->heads[list]) {
      tick(stack, head);
    }
  }
  for (flow *flow = flow_next_acknowledging(stack); flow != NULL; flow = flow_next_acknowledging(stack)) {
    if (flow->pcb == NULL || (flow->pcb->flags & TF_ACK_DELAY) == 0) continue;
    flow_select(stack, flow);
    tcp_ack_now(flow->pcb);
    tcp_output(flow->pcb);
    flow_deselect(stack);
  }
  stack_leave();
}

double io_tcp_stack_next_timeout(const io_tcp_stack *stack) {
  double due = INFINITY;
  // The next tick after the last one that was handled.
  if (stack->heads[LIST_TICKING] != NULL) due = stack->last_ticks * (double)LWIP_TICK_MS;
  for (flow_list list = LIST_IDLE; list < LISTS; list++) {
    if (stack->heads[list] != NULL && stack->heads[list]->due_ms < due) due = stack->heads[list]->due_ms;
  }
  const flow *flow = stack->first_acknowledging;
  return flow != NULL && flow->acknowledge_ms < due ? flow->acknowledge_ms : due;
}

int32_t io_tcp_stack_poll_packets(io_tcp_stack *stack) {
  io_tcp_stack_memory *memory = &stack->memory;
  int32_t left = stack->packet_count - stack->polled_packets;
  // Packets that arrived while these were written.
  memmove(memory->offsets, memory->offsets + stack->polled_packets, (size_t)left * sizeof *memory->offsets);
  memmove(memory->lengths, memory->lengths + stack->polled_packets, (size_t)left * sizeof *memory->lengths);
  stack->packet_count = left;
  stack->polled_packets = 0;
  if (left == 0) {
    stack->packet_end = 0;
    stack->joinable.flow = NULL;
  }
  if (stack->first_blocked != NULL) {
    stack_enter(stack, 0);
    flow *last = stack->last_blocked;
    for (flow *flow = flow_next_blocked(stack); flow != NULL; flow = flow == last ? NULL : flow_next_blocked(stack)) {
      if (flow->pcb == NULL) continue;
      flow_select(stack, flow);
      tcp_output(flow->pcb);
      bool is_full = stack->is_full;
      flow_deselect(stack);
      if (is_full) break;
    }
    stack_leave();
  }
  stack->polled_packets = stack->packet_count;
  // Nothing more may be joined to a packet that was handed out.
  stack->joinable.flow = NULL;
  return stack->packet_count;
}

static void add_event(io_tcp_stack *stack, int32_t *count, const flow *flow, int32_t what, int32_t first, int32_t second) {
  int32_t *row = stack->memory.events + *count * IO_TCP_STACK_EVENT_INTS;
  row[0] = (int32_t)flow->number;
  row[1] = what;
  row[2] = first;
  row[3] = second;
  ++*count;
}

// Moves held bytes to `received`, as far as there is room.
static size_t take_held(io_tcp_stack *stack, flow *flow) {
  size_t room = stack->memory.received_bytes - stack->received_end, taken = 0;
  if (room > CHUNK_BYTES) room = CHUNK_BYTES;
  while (flow->first_held != NULL && taken < room) {
    held *first = flow->first_held;
    size_t part = first->length - first->offset;
    if (part > room - taken) part = room - taken;
    memcpy(stack->memory.received + stack->received_end + taken, first->bytes + first->offset, part);
    taken += part;
    first->offset += part;
    if (first->offset < first->length) break;
    flow->first_held = first->next;
    if (flow->first_held == NULL) flow->last_held = NULL;
    heap_free(first);
  }
  stack->received_end += taken;
  if (flow->pcb != NULL && taken > 0) {
    flow_select(stack, flow);
    flow_consumed(flow, taken);
    flow_deselect(stack);
  }
  return taken;
}

// Returns false if there is no room for all events of the flow.
static bool tell_flow(io_tcp_stack *stack, int32_t *count, flow *flow) {
  if (flow->is_detached) {
    if (!flow->is_closed) return true;
  } else {
    if (flow->was_accepted) add_event(stack, count, flow, IO_TCP_STACK_ACCEPTED, 0, 0);
    flow->was_accepted = false;
    // Bytes that arrived before it was paused.
    if (flow->gathered > 0) {
      add_event(stack, count, flow, IO_TCP_STACK_BYTES, (int32_t)flow->gathered_at, (int32_t)flow->gathered);
      flow->gathered = flow->consumed = 0;
      stack->gathering--;
    }
    bool is_lost = flow->is_closed && flow->error != 0;
    if (!flow->is_paused && !is_lost) {
      if (flow->first_held != NULL) {
        size_t at = stack->received_end, taken = take_held(stack, flow);
        if (taken > 0) add_event(stack, count, flow, IO_TCP_STACK_BYTES, (int32_t)at, (int32_t)taken);
        if (flow->first_held != NULL) return false;
      }
      if (flow->has_ended && !flow->has_told_end) {
        flow->has_told_end = true;
        add_event(stack, count, flow, IO_TCP_STACK_ENDED, 0, 0);
      }
    }
    if (flow->is_writable) add_event(stack, count, flow, IO_TCP_STACK_WRITABLE, 0, 0);
    flow->is_writable = false;
    // A connection that ended in an orderly way is first read to its end.
    bool is_read = flow->first_held == NULL && (!flow->has_ended || flow->has_told_end);
    if (!flow->is_closed || (!is_lost && !is_read)) return true;
  }
  add_event(stack, count, flow, IO_TCP_STACK_CLOSED, flow->error, 0);
  flow_free(stack, flow);
  return true;
}

int32_t io_tcp_stack_poll_events(io_tcp_stack *stack) {
  int32_t count = 0;
  if (stack->first_ready == NULL) {
    if (stack->gathering == 0) stack->received_end = 0;
    return 0;
  }
  stack_enter(stack, 0);
  if (stack->gathering == 0) stack->received_end = 0;
  const flow *last = stack->last_ready;
  bool is_last = false;
  while (!is_last && (size_t)count + FLOW_EVENTS <= stack->memory.event_capacity) {
    flow *flow = flow_next_ready(stack);
    if (flow == NULL) break;
    is_last = flow == last;
    if (tell_flow(stack, &count, flow)) continue;
    flow_ready(stack, flow);
    break;
  }
  stack_leave();
  return count;
}

void io_tcp_stack_counts(const io_tcp_stack *stack, double counts[IO_TCP_STACK_COUNTS]) {
  memcpy(counts, stack->counts, sizeof stack->counts);
}

size_t io_tcp_stack_memory_used(const io_tcp_stack *stack) {
  return stack->used;
}

#else

bool io_tcp_stack_is_there(void) {
  return false;
}

int io_tcp_stack_create(const io_tcp_stack_options *options, const io_tcp_stack_memory *memory, io_tcp_stack **result) {
  (void)options, (void)memory, (void)result;
  return UV__ENOTSUP;
}

void io_tcp_stack_free(io_tcp_stack *stack) {
  (void)stack;
}

void io_tcp_stack_handle_segments(io_tcp_stack *stack, double now_ms, uint8_t *data, size_t data_bytes, const int32_t *rows,
                                  size_t count) {
  (void)stack, (void)now_ms, (void)data, (void)data_bytes, (void)rows, (void)count;
}

int64_t io_tcp_stack_write(io_tcp_stack *stack, double now_ms, uint32_t flow, const uint8_t *bytes, size_t length) {
  (void)stack, (void)now_ms, (void)flow, (void)bytes, (void)length;
  return UV__ENOTSUP;
}

bool io_tcp_stack_is_full(const io_tcp_stack *stack, uint32_t flow) {
  (void)stack, (void)flow;
  return false;
}

void io_tcp_stack_end(io_tcp_stack *stack, double now_ms, uint32_t flow) {
  (void)stack, (void)now_ms, (void)flow;
}

void io_tcp_stack_pause(io_tcp_stack *stack, uint32_t flow, bool is_paused) {
  (void)stack, (void)flow, (void)is_paused;
}

void io_tcp_stack_close(io_tcp_stack *stack, double now_ms, uint32_t flow) {
  (void)stack, (void)now_ms, (void)flow;
}

void io_tcp_stack_drop(io_tcp_stack *stack, uint32_t flow, bool has_reset) {
  (void)stack, (void)flow, (void)has_reset;
}

void io_tcp_stack_handle_timeout(io_tcp_stack *stack, double now_ms) {
  (void)stack, (void)now_ms;
}

double io_tcp_stack_next_timeout(const io_tcp_stack *stack) {
  (void)stack;
  return 0;
}

int32_t io_tcp_stack_poll_packets(io_tcp_stack *stack) {
  (void)stack;
  return 0;
}

int32_t io_tcp_stack_poll_events(io_tcp_stack *stack) {
  (void)stack;
  return 0;
}

void io_tcp_stack_counts(const io_tcp_stack *stack, double counts[IO_TCP_STACK_COUNTS]) {
  (void)stack;
  for (int i = 0; i < IO_TCP_STACK_COUNTS; i++) counts[i] = 0;
}

size_t io_tcp_stack_memory_used(const io_tcp_stack *stack) {
  (void)stack;
  return 0;
}

#endif
