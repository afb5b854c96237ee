#ifdef UNDERPASS_LWIP

#include "flow.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <uv/errno.h>

// One tick longer than lwIP waits before it probes whether the peer still exists.
#define IDLE_MS (TCP_KEEPIDLE_DEFAULT + 2.0 * LWIP_TICK_MS)
#define TIME_WAIT_MS (2.0 * TCP_MSL + 2.0 * LWIP_TICK_MS)
// As on Linux.
#define ACKNOWLEDGE_MS 40

flow *flow_of(const io_tcp_stack *stack, uint32_t number) {
  return number < stack->flow_capacity ? stack->flows[number] : NULL;
}

flow *flow_new(io_tcp_stack *stack, uint32_t number) {
  if (number >= stack->flow_capacity) {
    uint32_t capacity = stack->flow_capacity == 0 ? 64 : stack->flow_capacity;
    while (capacity <= number) capacity *= 2;
    flow **grown = realloc(stack->flows, capacity * sizeof *grown);
    if (grown == NULL) return NULL;
    memset(grown + stack->flow_capacity, 0, (capacity - stack->flow_capacity) * sizeof *grown);
    stack->flows = grown;
    stack->flow_capacity = capacity;
  }
  flow *made = heap_calloc(1, sizeof *made);
  if (made == NULL) return NULL;
  made->number = number;
  made->is_paused = true;
  made->first_row = made->last_row = -1;
  stack->flows[number] = made;
  return made;
}

static void unlist(io_tcp_stack *stack, flow *flow) {
  if (flow->list == LIST_NONE) return;
  *(flow->previous == NULL ? &stack->heads[flow->list] : &flow->previous->next) = flow->next;
  *(flow->next == NULL ? &stack->tails[flow->list] : &flow->next->previous) = flow->previous;
  flow->previous = flow->next = NULL;
  flow->list = LIST_NONE;
}

static void list(io_tcp_stack *stack, flow *flow, flow_list list) {
  if (flow->list == list && (list == LIST_TICKING || stack->tails[list] == flow)) return;
  unlist(stack, flow);
  if (list == LIST_NONE) return;
  flow->list = list;
  flow->previous = stack->tails[list];
  *(flow->previous == NULL ? &stack->heads[list] : &flow->previous->next) = flow;
  stack->tails[list] = flow;
}

// Queues that contain a flow at most once, from which flows are taken one after another.
static void remove_from(flow **first, flow **last, flow *of, size_t link) {
  flow *previous = NULL;
  for (flow **at = first; *at != NULL; previous = *at, at = (flow **)(void *)((char *)*at + link)) {
    if (*at != of) continue;
    *at = *(flow **)(void *)((char *)of + link);
    if (*last == of) *last = previous;
    return;
  }
}

void flow_discard(io_tcp_stack *stack, flow *flow) {
  if (flow->gathered > 0) stack->gathering--;
  flow->gathered = flow->consumed = 0;
  while (flow->first_held != NULL) {
    held *next = flow->first_held->next;
    heap_free(flow->first_held);
    flow->first_held = next;
  }
  flow->last_held = NULL;
}

void flow_free(io_tcp_stack *stack, flow *flow) {
  unlist(stack, flow);
  if (flow->is_ready) remove_from(&stack->first_ready, &stack->last_ready, flow, offsetof(struct flow, next_ready));
  if (flow->is_blocked) remove_from(&stack->first_blocked, &stack->last_blocked, flow, offsetof(struct flow, next_blocked));
  if (flow->is_acknowledging)
    remove_from(&stack->first_acknowledging, &stack->last_acknowledging, flow, offsetof(struct flow, next_acknowledging));
  if (stack->joinable.flow == flow) stack->joinable.flow = NULL;
  flow_discard(stack, flow);
  stack->flows[flow->number] = NULL;
  heap_free(flow);
}

void flow_ready(io_tcp_stack *stack, flow *flow) {
  if (flow->is_ready) return;
  flow->is_ready = true;
  flow->next_ready = NULL;
  *(stack->last_ready == NULL ? &stack->first_ready : &stack->last_ready->next_ready) = flow;
  stack->last_ready = flow;
}

flow *flow_next_ready(io_tcp_stack *stack) {
  flow *next = stack->first_ready;
  if (next == NULL) return NULL;
  stack->first_ready = next->next_ready;
  if (stack->first_ready == NULL) stack->last_ready = NULL;
  next->is_ready = false;
  return next;
}

static void block(io_tcp_stack *stack, flow *flow) {
  if (flow->is_blocked) return;
  flow->is_blocked = true;
  flow->next_blocked = NULL;
  *(stack->last_blocked == NULL ? &stack->first_blocked : &stack->last_blocked->next_blocked) = flow;
  stack->last_blocked = flow;
}

flow *flow_next_blocked(io_tcp_stack *stack) {
  flow *next = stack->first_blocked;
  if (next == NULL) return NULL;
  stack->first_blocked = next->next_blocked;
  if (stack->first_blocked == NULL) stack->last_blocked = NULL;
  next->is_blocked = false;
  return next;
}

static void acknowledge_later(io_tcp_stack *stack, flow *flow) {
  if (flow->is_acknowledging) return;
  flow->is_acknowledging = true;
  flow->acknowledge_ms = stack->now_ms + ACKNOWLEDGE_MS;
  flow->next_acknowledging = NULL;
  *(stack->last_acknowledging == NULL ? &stack->first_acknowledging : &stack->last_acknowledging->next_acknowledging) = flow;
  stack->last_acknowledging = flow;
}

flow *flow_next_acknowledging(io_tcp_stack *stack) {
  flow *next = stack->first_acknowledging;
  if (next == NULL || next->acknowledge_ms > stack->now_ms) return NULL;
  stack->first_acknowledging = next->next_acknowledging;
  if (stack->first_acknowledging == NULL) stack->last_acknowledging = NULL;
  next->is_acknowledging = false;
  return next;
}

void flow_select(io_tcp_stack *stack, flow *flow) {
  struct tcp_pcb *pcb = flow->pcb;
  bool waits = pcb != NULL && pcb->state == TIME_WAIT;
  tcp_active_pcbs = waits ? NULL : pcb;
  tcp_tw_pcbs = waits ? pcb : NULL;
  tcp_ticks = stack->ticks;
  stack->selected = flow;
  stack->is_full = false;
}

static bool needs_ticks(const flow *flow) {
  const struct tcp_pcb *pcb = flow->pcb;
  // Nothing in flight would report room for a flow that waits for memory.
  if (flow->wants_to_write || pcb->unsent != NULL || pcb->unacked != NULL || pcb->ooseq != NULL) return true;
  if (pcb->rtime >= 0 || pcb->persist_backoff > 0 || pcb->keep_cnt_sent > 0) return true;
  if ((pcb->flags & (TF_CLOSEPEND | TF_NAGLEMEMERR)) != 0) return true;
  bool asks = pcb->state == ESTABLISHED || pcb->state == CLOSE_WAIT;
  if (asks) return (tcp_ticks - pcb->tmr) * (double)LWIP_TICK_MS > pcb->keep_idle;
  return pcb->state != FIN_WAIT_2 || (pcb->flags & TF_RXCLOSED) != 0;
}

void flow_deselect(io_tcp_stack *stack) {
  flow *flow = stack->selected;
  stack->selected = NULL;
  flow->pcb = tcp_active_pcbs != NULL ? tcp_active_pcbs : tcp_tw_pcbs;
  tcp_active_pcbs = tcp_tw_pcbs = NULL;
  if (flow->pcb == NULL) {
    list(stack, flow, LIST_NONE);
    if (!flow->has_begun) return;
    // An end that lwIP did not report is an orderly one.
    flow->is_closed = true;
    flow_ready(stack, flow);
    return;
  }
  if (stack->is_full) block(stack, flow);
  if ((flow->pcb->flags & TF_ACK_DELAY) != 0) acknowledge_later(stack, flow);
  if (flow->pcb->state == TIME_WAIT) {
    double due_ms = flow->pcb->tmr * (double)LWIP_TICK_MS + TIME_WAIT_MS;
    if (flow->list == LIST_TIME_WAIT && flow->due_ms == due_ms) return;
    flow->due_ms = due_ms;
    list(stack, flow, LIST_TIME_WAIT);
  } else if (needs_ticks(flow)) {
    if (stack->heads[LIST_TICKING] == NULL) stack->last_ticks = stack->ticks;
    if (flow->list != LIST_TICKING) flow->ticked = stack->ticks;
    list(stack, flow, LIST_TICKING);
  } else {
    flow->due_ms = stack->now_ms + IDLE_MS;
    list(stack, flow, LIST_IDLE);
  }
}

void flow_consumed(flow *flow, size_t bytes) {
  // lwIP may have forgotten the connection, or be about to.
  while (bytes > 0 && flow->pcb != NULL && flow->error == 0) {
    u16_t part = (u16_t)(bytes < 0xffff ? bytes : 0xffff);
    tcp_recved(flow->pcb, part);
    bytes -= part;
  }
}

// Adds a buffer's bytes to those that wait for a reader.
static bool hold(flow *flow, const struct pbuf *p, size_t length) {
  held *made = heap_take(sizeof *made + length);
  if (made == NULL) return false;
  made->next = NULL;
  made->length = length;
  made->offset = 0;
  pbuf_copy_partial(p, made->bytes, (u16_t)length, 0);
  *(flow->last_held == NULL ? &flow->first_held : &flow->last_held->next) = made;
  flow->last_held = made;
  return true;
}

static err_t on_received(void *argument, struct tcp_pcb *pcb, struct pbuf *p, err_t error) {
  io_tcp_stack *stack = stack_current;
  flow *flow = argument;
  (void)error;
  flow_ready(stack, flow);
  if (p == NULL) {
    flow->has_ended = true;
    return ERR_OK;
  }
  size_t length = p->tot_len;
  flow->unacknowledged += length;
  bool is_next = flow->gathered == 0 || flow->gathered_at + flow->gathered == stack->received_end;
  bool has_room = stack->memory.received_bytes - stack->received_end >= length;
  if (!flow->is_paused && flow->first_held == NULL && is_next && has_room) {
    pbuf_copy_partial(p, stack->memory.received + stack->received_end, (u16_t)length, 0);
    if (flow->gathered == 0) {
      flow->gathered_at = stack->received_end;
      stack->gathering++;
    }
    flow->gathered += length;
    stack->received_end += length;
  } else if (!hold(flow, p, length)) {
    flow->error = UV__ENOMEM;
    pbuf_free(p);
    tcp_abort(pcb);
    return ERR_ABRT;
  }
  pbuf_free(p);
  return ERR_OK;
}

static err_t on_sent(void *argument, struct tcp_pcb *pcb, u16_t length) {
  flow *flow = argument;
  (void)length;
  bool has_room = pcb->snd_buf >= TCP_SND_BUF / 2 && pcb->snd_queuelen <= TCP_SND_QUEUELEN / 2;
  if (flow->wants_to_write && has_room) {
    flow->wants_to_write = false;
    flow->is_writable = true;
    flow_ready(stack_current, flow);
  }
  return ERR_OK;
}

static void on_error(void *argument, err_t error) {
  flow *flow = argument;
  if (flow->error != 0) return;
  if (error == ERR_RST) flow->error = UV__ECONNRESET;
  else if (error == ERR_ABRT) flow->error = UV__ETIMEDOUT;
}

void flow_listen(flow *flow) {
  struct tcp_pcb *pcb = flow->pcb;
  tcp_arg(pcb, flow);
  tcp_recv(pcb, on_received);
  tcp_sent(pcb, on_sent);
  tcp_err(pcb, on_error);
  tcp_nagle_disable(pcb);
  ip_set_option(pcb, SOF_KEEPALIVE);
}

#else

typedef int underpass_has_no_flow;

#endif
