// Passes segments to lwIP: checks them, sorts them by connection, and merges consecutive ones.
#ifdef UNDERPASS_LWIP

#include <string.h>

#include "flow.h"
#include "lock.h"
#include "lwip/pbuf.h"

#define VIRTIO_HEADER_BYTES 10
#define VIRTIO_NEEDS_CHECKSUM 1
// Rows handled at a time.
#define BATCH_ROWS 1024
// The minimum MSS for a peer, as on Linux (tcp_min_snd_mss): smaller segments cost more than they carry.
#define MIN_MSS 48
// RFC 6928.
#define INITIAL_SEGMENTS 10

typedef struct segment {
  uint8_t *ip, *tcp, *payload;
  size_t header_bytes, length;
  uint32_t sequence, acknowledgment;
  uint8_t flags;
} segment;

static uint32_t read32(const uint8_t *from) {
  return (uint32_t)from[0] << 24 | (uint32_t)from[1] << 16 | (uint32_t)from[2] << 8 | from[3];
}

// Handles options that end before they are complete, whose length lwIP 2.2.1 would read beyond the header: everything after the
// last complete option becomes the end of the list. Also removes SYN options from other segments: they belong only in a SYN (RFC
// 9293 §3.2), but lwIP accepts them at any time.
static void check_options(const segment *segment) {
  uint8_t *at = segment->tcp + TCP_HLEN, *end = segment->tcp + segment->header_bytes;
  while (at < end && *at != LWIP_TCP_OPT_EOL) {
    size_t bytes = *at == LWIP_TCP_OPT_NOP ? 1 : end - at >= 2 && at[1] >= 2 ? at[1] : (size_t)(end - at) + 1;
    if (bytes > (size_t)(end - at)) break;
    bool is_for_syn = *at == LWIP_TCP_OPT_MSS || *at == LWIP_TCP_OPT_WS || *at == LWIP_TCP_OPT_SACK_PERM;
    if (is_for_syn && (segment->flags & TCP_SYN) == 0) memset(at, LWIP_TCP_OPT_NOP, bytes);
    at += bytes;
  }
  memset(at, LWIP_TCP_OPT_EOL, (size_t)(end - at));
}

// Reads a row. Returns false if it is dropped.
static bool read_segment(io_tcp_stack *stack, uint8_t *data, size_t data_bytes, const int32_t *row, segment *result) {
  bool has_virtio = stack->options.has_virtio;
  int64_t start = (int64_t)row[1] + (has_virtio ? VIRTIO_HEADER_BYTES : 0), transport = row[2], end = row[3];
  if (row[1] < 0 || end > (int64_t)data_bytes || transport < start + 20 || end - transport < TCP_HLEN || end - transport > 0xffff)
    goto malformed;
  uint8_t *ip = data + start, *tcp = data + transport;
  if (ip[0] >> 4 != 4 && (ip[0] >> 4 != 6 || transport < start + 40)) goto malformed;
  size_t bytes = (size_t)(end - transport), header_bytes = (size_t)(tcp[12] >> 4) * 4;
  if (header_bytes < TCP_HLEN || header_bytes > bytes) goto malformed;
  bool is_partial = has_virtio && (data[row[1]] & VIRTIO_NEEDS_CHECKSUM) != 0;
  if (!is_partial && checksum_fold(checksum_add(checksum_pseudo(ip, bytes), tcp, bytes)) != 0xffff) {
    stack->counts[IO_TCP_STACK_COUNT_BAD_CHECKSUM]++;
    return false;
  }
  *result = (segment){.ip = ip,
                      .tcp = tcp,
                      .payload = tcp + header_bytes,
                      .header_bytes = header_bytes,
                      .length = bytes - header_bytes,
                      .sequence = read32(tcp + 4),
                      .acknowledgment = read32(tcp + 8),
                      .flags = tcp[13] & TCP_FLAGS};
  return true;
malformed:
  stack->counts[IO_TCP_STACK_COUNT_MALFORMED]++;
  return false;
}

static void on_input_freed(struct pbuf *p) {
  (void)p;
  stack_current->inputs_used--;
}

// Lends memory to lwIP as a buffer, until lwIP has returned.
static struct pbuf *lend(io_tcp_stack *stack, int index, uint8_t *bytes, size_t length) {
  struct pbuf_custom *custom = &stack->inputs[index];
  custom->custom_free_function = on_input_freed;
  stack->inputs_used++;
  return pbuf_alloced_custom(PBUF_RAW, (u16_t)length, PBUF_REF, custom, bytes, (u16_t)length);
}

static bool is_data_alone(const segment *segment) {
  return segment->header_bytes == TCP_HLEN && (segment->flags & ~TCP_PSH) == TCP_ACK && segment->length > 0;
}

// Whether lwIP passes it on at once and keeps nothing of it: the next segment in order with nothing waiting behind it, or one
// without sequence numbers.
static bool is_passed_on(const struct tcp_pcb *pcb, const segment *segment) {
  if (segment->length == 0 && (segment->flags & (TCP_FIN | TCP_SYN)) == 0) return true;
  if (pcb == NULL) return true;
  bool is_receiving = pcb->state == ESTABLISHED || pcb->state == FIN_WAIT_1 || pcb->state == FIN_WAIT_2;
  return is_receiving && pcb->ooseq == NULL && pcb->refused_data == NULL && segment->sequence == pcb->rcv_nxt;
}

// RFC 6582: if several segments of one window are lost, lwIP repeats the first, and waits for its timer for each of the others. A
// partial acknowledgment means that the next one is lost too.
static void repeat_next(flow *flow, bool was_recovering, uint32_t acknowledged) {
  struct tcp_pcb *pcb = flow->pcb;
  if (pcb == NULL || pcb->state == TIME_WAIT) return;
  bool is_recovering = (pcb->flags & TF_INFR) != 0;
  if (is_recovering && !was_recovering) flow->recovery_end = pcb->snd_nxt;
  bool is_partial = was_recovering && !is_recovering && pcb->lastack != acknowledged &&
                    TCP_SEQ_LT(pcb->lastack, flow->recovery_end) && pcb->unacked != NULL;
  if (!is_partial || tcp_rexmit(pcb) != ERR_OK) return;
  // This is progress, not another loss.
  pcb->nrtx = 0;
  pcb->rtime = 0;
  tcp_set_flags(pcb, TF_INFR);
  tcp_output(pcb);
}

// A repeated SYN may name another MSS, which lwIP then accepts unchanged.
static void limit_mss(const io_tcp_stack *stack, struct tcp_pcb *pcb) {
  if (pcb == NULL) return;
  u16_t most = (u16_t)(stack->options.mtu - (IP_IS_V6_VAL(pcb->remote_ip) ? 60 : 40));
  if (pcb->mss > most) pcb->mss = most;
  if (pcb->mss < MIN_MSS) pcb->mss = MIN_MSS;
}

static void give(io_tcp_stack *stack, flow *flow, const segment *first, struct pbuf *p) {
  bool was_recovering = flow->pcb != NULL && (flow->pcb->flags & TF_INFR) != 0;
  uint32_t acknowledged = flow->pcb == NULL ? 0 : flow->pcb->lastack;
  ip_layer_receive(stack, first->ip);
  tcp_input(p, &stack->netif);
  flow->pcb = tcp_active_pcbs != NULL ? tcp_active_pcbs : tcp_tw_pcbs;
  limit_mss(stack, flow->pcb);
  repeat_next(flow, was_recovering, acknowledged);
  if (stack->inputs_used == 0) return;
  // lwIP kept a buffer that it should not have, and the memory is about to be freed.
  if (flow->pcb != NULL) tcp_abandon(flow->pcb, 1);
  flow->pcb = NULL;
  stack->inputs_used = 0;
}

static void open_flow(io_tcp_stack *stack, flow *flow, const segment *segment, struct pbuf *p) {
  // The stack listens on any port: now on this one's.
  stack->listener.local_port = (u16_t)(segment->tcp[2] << 8 | segment->tcp[3]);
  tcp_listen_pcbs.listen_pcbs = &stack->listener;
  give(stack, flow, segment, p);
  tcp_listen_pcbs.listen_pcbs = NULL;
  if (flow->pcb == NULL) return;
  flow->has_begun = true;
  flow_listen(flow);
}

static void take_one(io_tcp_stack *stack, flow *flow, const segment *segment) {
  size_t bytes = segment->header_bytes + segment->length;
  bool is_open = flow->pcb != NULL;
  struct pbuf *p;
  check_options(segment);
  if (is_passed_on(flow->pcb, segment)) p = lend(stack, 0, segment->tcp, bytes);
  else {
    p = pbuf_alloc(PBUF_RAW, (u16_t)bytes, PBUF_RAM);
    if (p != NULL) pbuf_take(p, segment->tcp, (u16_t)bytes);
  }
  // Data that would have to wait for its reader finds no room.
  bool waits = segment->length > 0 && (flow->is_paused || flow->first_held != NULL);
  if (p != NULL && waits && !heap_has_room(stack, segment->length)) {
    pbuf_free(p);
    p = NULL;
  }
  if (p == NULL) {
    stack->counts[IO_TCP_STACK_COUNT_NO_MEMORY]++;
    return;
  }
  bool is_syn = (segment->flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN;
  if (!is_open && is_syn && !flow->has_begun) open_flow(stack, flow, segment, p);
  else give(stack, flow, segment, p);
  if (flow->was_accepted && flow->pcb != NULL && flow->pcb->cwnd < flow->pcb->mss * INITIAL_SEGMENTS && flow->pcb->unacked == NULL)
    flow->pcb->cwnd = flow->pcb->mss * INITIAL_SEGMENTS;
}

// Passes consecutive data as one segment, with the header of the first and the last acknowledgment and window.
static void take_run(io_tcp_stack *stack, flow *flow, const segment *run, int count) {
  const segment *first = &run[0], *last = &run[count - 1];
  size_t bytes = 0;
  for (int i = 0; i < count; i++) bytes += run[i].length;
  bool waits = flow->is_paused || flow->first_held != NULL;
  if (waits && !heap_has_room(stack, bytes)) {
    stack->counts[IO_TCP_STACK_COUNT_NO_MEMORY] += count;
    return;
  }
  memcpy(first->tcp + 8, last->tcp + 8, 4);
  memcpy(first->tcp + 14, last->tcp + 14, 2);
  for (int i = 1; i < count; i++) first->tcp[13] |= run[i].flags & TCP_PSH;
  struct pbuf *p = lend(stack, 0, first->tcp, TCP_HLEN + first->length);
  for (int i = 1; i < count; i++) pbuf_cat(p, lend(stack, i, run[i].payload, run[i].length));
  give(stack, flow, first, p);
}

// Handles all rows of one connection, in their order.
static void take_rows(io_tcp_stack *stack, flow *flow, uint8_t *data, size_t data_bytes, const int32_t *rows,
                      const int32_t *next) {
  segment run[MERGED_SEGMENTS];
  size_t run_bytes = 0;
  int count = 0;
  flow_select(stack, flow);
  for (int32_t row = flow->first_row; row >= 0; row = next[row]) {
    segment segment;
    if (!read_segment(stack, data, data_bytes, rows + row * IO_TCP_STACK_SEGMENT_INTS, &segment)) continue;
    bool continues = count > 0 && count < MERGED_SEGMENTS && is_data_alone(&segment) &&
                     segment.sequence == run[count - 1].sequence + run[count - 1].length &&
                     !TCP_SEQ_LT(segment.acknowledgment, run[count - 1].acknowledgment) &&
                     run_bytes + segment.length <= 0xffff - TCP_HLEN;
    if (count > 0 && !continues) {
      take_run(stack, flow, run, count);
      count = 0;
    }
    if (continues || (is_data_alone(&segment) && flow->pcb != NULL && is_passed_on(flow->pcb, &segment))) {
      run_bytes = count == 0 ? segment.length : run_bytes + segment.length;
      run[count++] = segment;
    } else take_one(stack, flow, &segment);
  }
  if (count > 0) take_run(stack, flow, run, count);
  flow_deselect(stack);
  if (flow->pcb == NULL) return;
  flow_select(stack, flow);
  // Only those of this batch: earlier bytes are consumed already.
  flow_consumed(flow, flow->gathered - flow->consumed);
  flow->consumed = flow->gathered;
  bool is_much = flow->unacknowledged >= 2 * (size_t)(stack->options.mtu - 40);
  if ((flow->pcb->flags & TF_ACK_DELAY) != 0 && is_much) {
    tcp_ack_now(flow->pcb);
    tcp_output(flow->pcb);
  }
  flow_deselect(stack);
}

// Answers a segment that belongs to no connection and begins none with a RST.
static void refuse(io_tcp_stack *stack, const segment *segment) {
  tcp_active_pcbs = tcp_tw_pcbs = NULL;
  check_options(segment);
  ip_layer_receive(stack, segment->ip);
  tcp_input(lend(stack, 0, segment->tcp, segment->header_bytes + segment->length), &stack->netif);
}

static void take_batch(io_tcp_stack *stack, uint8_t *data, size_t data_bytes, const int32_t *rows, int32_t count) {
  int32_t next[BATCH_ROWS], flows[BATCH_ROWS], flow_count = 0;
  for (int32_t i = 0; i < count; i++) {
    const int32_t *row = rows + i * IO_TCP_STACK_SEGMENT_INTS;
    next[i] = -1;
    if (row[0] < 0 || (uint32_t)row[0] >= stack->options.max_flows) {
      stack->counts[IO_TCP_STACK_COUNT_MALFORMED]++;
      continue;
    }
    flow *flow = flow_of(stack, (uint32_t)row[0]);
    if (flow == NULL) {
      segment segment;
      if (!read_segment(stack, data, data_bytes, row, &segment)) continue;
      if ((segment.flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) != TCP_SYN) {
        refuse(stack, &segment);
        continue;
      }
      flow = flow_new(stack, (uint32_t)row[0]);
      if (flow == NULL) {
        stack->counts[IO_TCP_STACK_COUNT_NO_MEMORY]++;
        continue;
      }
    }
    if (flow->first_row < 0) {
      flow->first_row = i;
      flows[flow_count++] = row[0];
    } else next[flow->last_row] = i;
    flow->last_row = i;
  }
  for (int32_t i = 0; i < flow_count; i++) {
    flow *flow = stack->flows[flows[i]];
    take_rows(stack, flow, data, data_bytes, rows, next);
    flow->first_row = flow->last_row = -1;
    // There was no memory for its SYN, which is treated as if it had not arrived.
    if (flow->pcb == NULL && !flow->has_begun) flow_free(stack, flow);
  }
}

void io_tcp_stack_handle_segments(io_tcp_stack *stack, double now_ms, uint8_t *data, size_t data_bytes, const int32_t *rows,
                                  size_t count) {
  stack_enter(stack, now_ms);
  for (size_t first = 0; first < count; first += BATCH_ROWS) {
    size_t part = count - first < BATCH_ROWS ? count - first : BATCH_ROWS;
    take_batch(stack, data, data_bytes, rows + first * IO_TCP_STACK_SEGMENT_INTS, (int32_t)part);
  }
  stack_leave();
}

#else

typedef int underpass_has_no_segments;

#endif
