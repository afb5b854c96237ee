#include "associations.h"

#include <stdlib.h>
#include <string.h>

#include "../host.h"
#include "address-text.h"
#include "guest.h"
#include "queue.h"

// Limit of what one association holds for the instance's thread.
#define MAX_WAITING_BYTES (512 * 1024)
#define MAX_WAITING 4096
#define MAX_DATAGRAM_BYTES 65507
// Limit of what the script takes in one call, in memory that it lends.
#define ROW_INTS 4
// Limit of what the owner gets in one call.
#define MAX_DELIVERED 128
#define DELIVERED_BYTES (256 * 1024)

struct underpass_association {
  guest guest;
  underpass_association_callbacks callbacks;
  void *user_data;
  // In the table, from its first datagram on. Used on the instance's thread.
  int32_t number;

  // Guarded by the guest's mutex.
  queue queue;
  // Its owner has closed it.
  bool is_closed;
};

// The associations of one instance, on its thread.
typedef struct associations {
  underpass_association **all;
  int32_t count;
  // All numbers below it are in use.
  int32_t first_free;
  // From the script: memory for datagrams to send, and its functions.
  JSValue arena, rows, on_datagrams, on_closed;

  // Datagrams being delivered, all to one receiver.
  underpass_association *receiver;
  underpass_datagram delivered[MAX_DELIVERED];
  size_t delivered_count, delivered_bytes;
  uint8_t *memory;
  // One after another; the last belongs to `last_address`.
  char (*texts)[ADDRESS_TEXT_BYTES];
  size_t text_count;
  uint8_t last_address[ADDRESS_MAX_BYTES];
  size_t last_address_bytes;
  bool is_flushing;
} associations;

// The owner's callbacks

static bool is_closed(underpass_association *association) {
  uv_mutex_lock(&association->guest.mutex);
  bool is_closed = association->is_closed;
  uv_mutex_unlock(&association->guest.mutex);
  return is_closed;
}

void associations_flush(instance *instance) {
  associations *associations = instance->associations;
  if (associations == NULL || associations->delivered_count == 0 || associations->is_flushing) return;
  underpass_association *receiver = associations->receiver;
  if (!instance->is_silent && receiver->callbacks.received != NULL && !is_closed(receiver)) {
    // The owner may call the script during this, which must not start it again.
    associations->is_flushing = true;
    receiver->callbacks.received(receiver->user_data, associations->delivered, associations->delivered_count);
    associations->is_flushing = false;
  }
  associations->delivered_count = associations->delivered_bytes = associations->text_count = 0;
  associations->receiver = NULL;
}

static underpass_association *find(instance *instance, int32_t number) {
  associations *associations = instance->associations;
  return associations != NULL && number >= 0 && number < associations->count ? associations->all[number] : NULL;
}

static const char *text_of(associations *associations, bytes_view address) {
  bool is_last = associations->text_count > 0 && associations->last_address_bytes == address.bytes &&
                 memcmp(associations->last_address, address.data, address.bytes) == 0;
  if (!is_last) {
    address_format(address.data, address.bytes, associations->texts[associations->text_count++]);
    memcpy(associations->last_address, address.data, address.bytes);
    associations->last_address_bytes = address.bytes;
  }
  return associations->texts[associations->text_count - 1];
}

// associationDeliver(number, data, offset, length, address)
static JSValue association_deliver(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  instance *instance = instance_of(context);
  associations *associations = instance->associations;
  underpass_association *receiver = find(instance, get_int(context, values[0]));
  bytes_view data = get_bytes(context, values[1]), address = get_bytes(context, values[4]);
  int32_t offset = get_int(context, values[2]), length = get_int(context, values[3]);
  if (receiver == NULL || offset < 0 || length < 0 || (size_t)offset + (size_t)length > data.bytes ||
      length > MAX_DATAGRAM_BYTES || address.bytes == 0 || address.bytes > ADDRESS_MAX_BYTES || associations->is_flushing)
    return JS_UNDEFINED;
  if (receiver != associations->receiver || associations->delivered_count == MAX_DELIVERED ||
      associations->delivered_bytes + (size_t)length > DELIVERED_BYTES)
    associations_flush(instance);
  associations->receiver = receiver;
  uint8_t *copy = associations->memory + associations->delivered_bytes;
  memcpy(copy, data.data + offset, (size_t)length);
  associations->delivered_bytes += (size_t)length;
  associations->delivered[associations->delivered_count++] = (underpass_datagram){
      .data = copy, .bytes = (size_t)length, .address = text_of(associations, address)};
  return JS_UNDEFINED;
}

// associationRefuse(number, address, reason, mtu)
static JSValue association_refuse(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  instance *instance = instance_of(context);
  underpass_association *association = find(instance, get_int(context, values[0]));
  bytes_view address = get_bytes(context, values[1]);
  if (association == NULL || association->callbacks.unreachable == NULL || instance->is_silent || is_closed(association))
    return JS_UNDEFINED;
  char text[ADDRESS_TEXT_BYTES];
  address_format(address.data, address.bytes, text);
  association->callbacks.unreachable(association->user_data, text,
                                     (underpass_unreachable_reason)get_int(context, values[2]),
                                     (unsigned)get_int(context, values[3]));
  return JS_UNDEFINED;
}

// Datagrams from the owner

// associationsSetup(arena, rows, onDatagrams(number, count), onClosed(number))
static JSValue associations_setup(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  associations *associations = instance_of(context)->associations;
  associations->arena = JS_DupValue(context, values[0]);
  associations->rows = JS_DupValue(context, values[1]);
  associations->on_datagrams = JS_DupValue(context, values[2]);
  associations->on_closed = JS_DupValue(context, values[3]);
  return JS_UNDEFINED;
}

static bool open_all(instance *instance) {
  associations *associations = calloc(1, sizeof *associations);
  if (associations == NULL) return false;
  instance->associations = associations;
  associations->arena = associations->rows = associations->on_datagrams = associations->on_closed = JS_UNDEFINED;
  associations->memory = malloc(DELIVERED_BYTES);
  associations->texts = malloc(MAX_DELIVERED * sizeof *associations->texts);
  instance_call(instance, "openAssociations");
  return associations->memory != NULL && associations->texts != NULL && !JS_IsUndefined(associations->arena);
}

static bool enter(instance *instance, underpass_association *association) {
  if (instance->associations == NULL && !open_all(instance)) return false;
  associations *associations = instance->associations;
  int32_t number = associations->first_free;
  while (number < associations->count && associations->all[number] != NULL) number++;
  if (number == associations->count) {
    int32_t capacity = number == 0 ? 8 : 2 * number;
    underpass_association **all = realloc(associations->all, (size_t)capacity * sizeof(void *));
    if (all == NULL) return false;
    memset(all + number, 0, (size_t)(capacity - number) * sizeof(void *));
    associations->all = all;
    associations->count = capacity;
  }
  associations->all[number] = association;
  association->number = number;
  associations->first_free = number + 1;
  return true;
}

// Moves waiting datagrams into the script's memory. Returns how many.
static int32_t take(underpass_association *association, bytes_view arena, bytes_view rows) {
  int32_t *row = (int32_t *)rows.data;
  int32_t max = (int32_t)(rows.bytes / (ROW_INTS * sizeof *row)), count = 0;
  size_t at = 0, length, address;
  uv_mutex_lock(&association->guest.mutex);
  for (; count < max; count++, row += ROW_INTS) {
    const uint8_t *record = queue_first(&association->queue, &length, &address);
    if (record == NULL || at + length + address > arena.bytes) break;
    memcpy(arena.data + at, record, length + address);
    row[0] = (int32_t)at;
    row[1] = (int32_t)length;
    row[2] = (int32_t)(at + length);
    row[3] = (int32_t)address;
    at += length + address;
    queue_pop(&association->queue);
  }
  // The rest waits for the next turn.
  if (queue_count(&association->queue) > 0) guest_stir(&association->guest);
  uv_mutex_unlock(&association->guest.mutex);
  return count;
}

static void handle(guest *guest) {
  underpass_association *association = (underpass_association *)guest;
  instance *instance = guest->instance;
  uv_mutex_lock(&guest->mutex);
  bool is_unused = association->number < 0 && queue_count(&association->queue) == 0;
  bool is_closed = association->is_closed;
  uv_mutex_unlock(&guest->mutex);
  if (is_unused && !is_closed) return;
  if (is_unused || (association->number < 0 && !enter(instance, association))) {
    guest_leave(guest);
    return;
  }
  associations *associations = instance->associations;
  JSContext *context = instance->engine.context;
  int32_t taken = take(association, get_bytes(context, associations->arena), get_bytes(context, associations->rows));
  if (taken > 0) {
    JSValue values[2] = {JS_NewInt32(context, association->number), JS_NewInt32(context, taken)};
    engine_run(&instance->engine, associations->on_datagrams, 2, values);
  }
  uv_mutex_lock(&guest->mutex);
  bool is_over = association->is_closed && queue_count(&association->queue) == 0;
  uv_mutex_unlock(&guest->mutex);
  if (!is_over) return;
  engine_run_number(&instance->engine, associations->on_closed, association->number);
  associations->all[association->number] = NULL;
  if (association->number < associations->first_free) associations->first_free = association->number;
  guest_leave(guest);
}

static void leave(guest *guest) {
  underpass_association *association = (underpass_association *)guest;
  if (association->callbacks.closed != NULL) association->callbacks.closed(association->user_data);
}

static void destroy(guest *guest) {
  underpass_association *association = (underpass_association *)guest;
  queue_free(&association->queue);
  free(association);
}

static const guest_kind ASSOCIATION = {handle, leave, destroy};

static const JSCFunctionListEntry FUNCTIONS[] = {
    FUNCTION("associationsSetup", 4, associations_setup),
    FUNCTION("associationDeliver", 5, association_deliver),
    FUNCTION("associationRefuse", 4, association_refuse),
};

void associations_add(JSContext *context, JSValueConst host) { ADD_FUNCTIONS(context, host, FUNCTIONS); }

void associations_end(instance *instance) {
  associations *associations = instance->associations;
  if (associations == NULL) return;
  JSContext *context = instance->engine.context;
  JS_FreeValue(context, associations->arena);
  JS_FreeValue(context, associations->rows);
  JS_FreeValue(context, associations->on_datagrams);
  JS_FreeValue(context, associations->on_closed);
  free(associations->memory);
  free(associations->texts);
  free(associations->all);
  free(associations);
  instance->associations = NULL;
}

// From any thread

int association_open(instance *instance, const underpass_association_callbacks *callbacks, void *user_data,
                     underpass_association **result) {
  underpass_association *association = calloc(1, sizeof *association);
  if (association == NULL) return set_error(UNDERPASS_ERR_RESOURCE, "no memory");
  association->callbacks = *callbacks;
  association->user_data = user_data;
  association->number = -1;
  if (guest_join(&association->guest, &ASSOCIATION, instance)) {
    *result = association;
    return 0;
  }
  free(association);
  return set_error(UNDERPASS_ERR_STATE, "it has stopped");
}

ptrdiff_t underpass_association_send(underpass_association *association, const underpass_datagram *datagrams,
                                     size_t count) {
  if (association == NULL) return set_error(UNDERPASS_ERR_OPTION, "association: NULL");
  if (datagrams == NULL && count > 0) return set_error(UNDERPASS_ERR_OPTION, "datagrams: NULL with a count");
  uint8_t address[ADDRESS_MAX_BYTES];
  size_t address_bytes = 0, sent = 0;
  const char *problem = NULL, *last = NULL;
  uv_mutex_lock(&association->guest.mutex);
  bool is_open = association->guest.instance != NULL && !association->is_closed;
  for (; is_open && sent < count; sent++) {
    const underpass_datagram *datagram = &datagrams[sent];
    if (datagram->data == NULL && datagram->bytes > 0) problem = "data: NULL with a length";
    else if (datagram->bytes > MAX_DATAGRAM_BYTES) problem = "bytes: more than 65507, which no datagram has";
    else if (datagram->address == NULL) problem = "address: NULL";
    else if (last == NULL || (datagram->address != last && strcmp(datagram->address, last) != 0)) {
      address_bytes = address_parse(datagram->address, address);
      if (address_bytes == 0) problem = "address: expected HOST:PORT";
      else last = datagram->address;
    }
    if (problem != NULL || !queue_push(&association->queue, MAX_WAITING, MAX_WAITING_BYTES, datagram->data,
                                       datagram->bytes, address, address_bytes))
      break;
  }
  if (sent > 0) guest_stir(&association->guest);
  uv_mutex_unlock(&association->guest.mutex);
  if (!is_open) return set_error(UNDERPASS_ERR_STATE, "the association or its instance has ended");
  return problem != NULL && sent == 0 ? set_error(UNDERPASS_ERR_OPTION, problem) : (ptrdiff_t)sent;
}

void underpass_association_close(underpass_association *association) {
  if (association == NULL) return;
  uv_mutex_lock(&association->guest.mutex);
  association->is_closed = true;
  guest_stir(&association->guest);
  uv_mutex_unlock(&association->guest.mutex);
  guest_release(&association->guest);
}
