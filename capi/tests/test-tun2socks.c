// tun2socks with packets by functions, by a descriptor, and over a Unix socket.
#define main example_main
#include "../../examples/c/packets.c"
#undef main

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include "tunnel.h"

enum { ICMP = 1, TCP = 6, UDP = 17 };

static void put16(unsigned char *at, unsigned value) {
  at[0] = (unsigned char)(value >> 8);
  at[1] = (unsigned char)value;
}

static unsigned get16(const unsigned char *at) { return (unsigned)at[0] << 8 | at[1]; }

static unsigned sum_of(const unsigned char *bytes, size_t count, unsigned sum) {
  for (size_t i = 0; i + 1 < count; i += 2) sum += get16(bytes + i);
  if (count % 2 == 1) sum += (unsigned)bytes[count - 1] << 8;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return sum;
}

// Writes an IPv4 packet from 10.9.8.7, and completes the transport header after it. Returns its length.
static size_t make_packet(unsigned char packet[1500], int protocol, uint32_t to, const void *payload, size_t bytes) {
  size_t length = 20 + bytes;
  memset(packet, 0, 20);
  packet[0] = 0x45;
  put16(packet + 2, (unsigned)length);
  packet[8] = 64;
  packet[9] = (unsigned char)protocol;
  memcpy(packet + 12, "\x0a\x09\x08\x07", 4);
  memcpy(packet + 16, &to, 4);
  put16(packet + 10, ~sum_of(packet, 20, 0) & 0xffff);
  memcpy(packet + 20, payload, bytes);
  return length;
}

static size_t make_udp(unsigned char packet[1500], uint32_t to, unsigned port, const char *text) {
  unsigned char datagram[256] = {0};
  size_t bytes = 8 + strlen(text);
  put16(datagram, 4000);
  put16(datagram + 2, port);
  put16(datagram + 4, (unsigned)bytes);
  memcpy(datagram + 8, text, strlen(text));
  // The checksum is 0, which means none.
  return make_packet(packet, UDP, to, datagram, bytes);
}

static size_t make_echo(unsigned char packet[1500], uint32_t to) {
  unsigned char echo[16] = {8, 0, 0, 0, 0, 1, 0, 1, 'p', 'i', 'n', 'g'};
  put16(echo + 2, ~sum_of(echo, sizeof echo, 0) & 0xffff);
  return make_packet(packet, ICMP, to, echo, sizeof echo);
}

static size_t make_syn(unsigned char packet[1500], uint32_t to) {
  unsigned char segment[20] = {0};
  put16(segment, 4001);
  put16(segment + 2, 80);
  segment[12] = 0x50;
  segment[13] = 2;
  unsigned char pseudo[12] = "\x0a\x09\x08\x07";
  memcpy(pseudo + 4, &to, 4);
  pseudo[9] = TCP;
  put16(pseudo + 10, sizeof segment);
  put16(segment + 16, ~sum_of(segment, sizeof segment, sum_of(pseudo, sizeof pseudo, 0)) & 0xffff);
  return make_packet(packet, TCP, to, segment, sizeof segment);
}

// Carries packets both ways, one for each read and write.
static int application;

static void open_application(void) {
  int pair[2];
  assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
  const struct timeval patience = {.tv_sec = 10};
  setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  application = pair[0];
  device = pair[1];
}

// Reads the next packet of a protocol from an address.
static size_t expect(unsigned char packet[1500], int protocol, uint32_t from) {
  for (;;) {
    ssize_t count = read(application, packet, 1500);
    if (count <= 0) fail_msg("no packet of protocol %d", protocol);
    if (packet[9] == protocol && memcmp(packet + 12, &from, 4) == 0) return (size_t)count;
  }
}

static uint32_t ip(const char *text) {
  uint32_t address;
  assert_int_equal(inet_pton(AF_INET, text, &address), 1);
  return address;
}

// An address of this machine outside loopback; 0 if there is none.
static uint32_t own_address(void) {
  struct ifaddrs *all;
  uint32_t found = 0;
  assert_int_equal(getifaddrs(&all), 0);
  for (struct ifaddrs *each = all; each != NULL && found == 0; each = each->ifa_next) {
    if (each->ifa_addr == NULL || each->ifa_addr->sa_family != AF_INET || each->ifa_flags & IFF_LOOPBACK) continue;
    found = ((struct sockaddr_in *)each->ifa_addr)->sin_addr.s_addr;
  }
  freeifaddrs(all);
  return found;
}

// With any device, tun2socks answers and refuses packets by itself.
static void check_answers(void) {
  unsigned char packet[1500];
  // Any address answers an echo request.
  assert_true(write(application, packet, make_echo(packet, ip("203.0.113.1"))) > 0);
  expect(packet, ICMP, ip("203.0.113.1"));
  assert_int_equal(packet[20], 0);
  assert_memory_equal(packet + 28, "ping", 4);
  // TCP is refused, and a rule refuses UDP.
  assert_true(write(application, packet, make_syn(packet, ip("203.0.113.2"))) > 0);
  expect(packet, TCP, ip("203.0.113.2"));
  assert_int_equal(packet[33] & 4, 4);
  assert_true(write(application, packet, make_udp(packet, ip("203.0.113.3"), 443, "no")) > 0);
  expect(packet, ICMP, ip("203.0.113.3"));
  assert_int_equal(packet[20], 3);
}

static const char RULES[] = "{\"rule\": \"udp *:443 reject\", \"server\": \"127.0.0.1:1\"}";

static void packets_go_both_ways_by_functions(void **state) {
  (void)state;
  uint32_t own = own_address();
  if (own == 0) fail_msg("this machine has no address but those of loopback");
  recorder at_server;
  recorder_init(&at_server);
  underpass_server *server = tunnel_server(&at_server, "{\"allow\": \"0.0.0.0/0\", \"age-budget-ms\": 10000}");
  open_application();
  underpass_tun2socks *tun2socks =
      start(at_server.listen, TUNNEL_KEY, "{\"rule\": \"udp *:443 reject\", \"age-budget-ms\": 10000}");
  assert_non_null(tun2socks);
  pthread_t reader;
  assert_int_equal(pthread_create(&reader, NULL, read_packets, tun2socks), 0);
  check_answers();

  // Through the tunnel to a target, and back.
  struct sockaddr_in target_address = {.sin_family = AF_INET, .sin_addr.s_addr = own}, source;
  int target = socket(AF_INET, SOCK_DGRAM, 0);
  socklen_t length = sizeof target_address;
  assert_int_equal(bind(target, (struct sockaddr *)&target_address, length), 0);
  getsockname(target, (struct sockaddr *)&target_address, &length);
  recorder_wait(&at_server, &at_server.session_up, 1);
  unsigned char packet[1500];
  assert_true(write(application, packet, make_udp(packet, own, ntohs(target_address.sin_port), "question")) > 0);
  char text[64] = "";
  assert_int_equal(recvfrom(target, text, sizeof text, 0, (struct sockaddr *)&source, &length), 8);
  assert_string_equal(text, "question");
  sendto(target, "answer", 6, 0, (struct sockaddr *)&source, length);
  assert_int_equal(expect(packet, UDP, own), 20 + 8 + 6);
  assert_memory_equal(packet + 28, "answer", 6);

  underpass_stats stats = {.size = sizeof stats};
  assert_int_equal(underpass_tun2socks_stats(tun2socks, &stats), 0);
  assert_int_equal(stats.sessions, 1);
  assert_true(stats.datagrams_out >= 1);
  assert_int_equal(underpass_tun2socks_network_changed(tun2socks), 0);
  recorder_wait(&at_server, &at_server.session_resumed, 1);

  assert_int_equal(underpass_tun2socks_stop(tun2socks), 0);
  close(application);
  pthread_join(reader, NULL);
  underpass_tun2socks_free(tun2socks);
  underpass_server_free(server);
  close(target);
  close(device);
  recorder_destroy(&at_server);
}

static underpass_tun2socks *start_device(recorder *recorder, const char *name, const char *config) {
  underpass_tun2socks_options options = {.size = sizeof options, .device = name, .config = config};
  underpass_callbacks callbacks = recorder_callbacks();
  underpass_tun2socks *tun2socks;
  if (underpass_tun2socks_start(&options, &callbacks, recorder, &tun2socks) != 0) fail_msg("%s", underpass_error_text());
  recorder_wait(recorder, &recorder->ready, 1);
  assert_string_equal(recorder->listen, name);
  return tun2socks;
}

static void tcp_is_terminated_without_a_kernel(void **state) {
  (void)state;
  open_application();
  underpass_tun2socks *tun2socks =
      start("127.0.0.1:1", TUNNEL_KEY, "{\"tcp-via\": \"direct\", \"udp-via\": \"reject\"}");
  assert_non_null(tun2socks);
  pthread_t reader;
  assert_int_equal(pthread_create(&reader, NULL, read_packets, tun2socks), 0);
  unsigned char packet[1500];
  assert_true(write(application, packet, make_syn(packet, ip("203.0.113.2"))) > 0);
  // SYN and ACK for the sent SYN.
  expect(packet, TCP, ip("203.0.113.2"));
  assert_int_equal(packet[33], 0x12);
  assert_memory_equal(packet + 28, "\0\0\0\1", 4);
  assert_int_equal(underpass_tun2socks_stop(tun2socks), 0);
  close(application);
  pthread_join(reader, NULL);
  underpass_tun2socks_free(tun2socks);
  close(device);
}

static void packets_come_over_a_unix_socket(void **state) {
  (void)state;
  char name[64];
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  snprintf(address.sun_path, sizeof address.sun_path, "/tmp/underpass-test-%d.sock", (int)getpid());
  snprintf(name, sizeof name, "unix:%s", address.sun_path);
  recorder recorder;
  recorder_init(&recorder);
  underpass_tun2socks *tun2socks = start_device(&recorder, name, RULES);
  for (int round = 0; round < 2; round++) {
    application = socket(AF_UNIX, SOCK_STREAM, 0);
    const struct timeval patience = {.tv_sec = 10};
    setsockopt(application, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    assert_int_equal(connect(application, (struct sockaddr *)&address, sizeof address), 0);
    check_answers();
    // Anything but a packet ends the connection, and another may follow.
    assert_int_equal(write(application, "GET / HTTP/1.1\r\n", 16), 16);
    char end;
    assert_true(read(application, &end, 1) <= 0);
    close(application);
  }
  underpass_tun2socks_free(tun2socks);
  assert_int_equal(access(address.sun_path, F_OK), -1);
  recorder_destroy(&recorder);
}

static void ends_with_its_device(void **state) {
  (void)state;
  recorder recorder;
  recorder_init(&recorder);
  open_application();
  int ours = dup(device);
  fcntl(ours, F_SETFL, fcntl(ours, F_GETFL) | O_NONBLOCK);
  char name[16];
  snprintf(name, sizeof name, "fd:%d", ours);
  // The kernel that terminates TCP has this address.
  underpass_tun2socks *tun2socks = start_device(&recorder, name, "{\"address\": \"127.0.0.1/30\"}");
  close(device);
  close(application);
  recorder_wait(&recorder, &recorder.stopped, 1);
  assert_int_equal(recorder.stopped_status, UNDERPASS_ERR_DEVICE);
  assert_int_equal(recorder.errors, 1);
  underpass_tun2socks_free(tun2socks);
  recorder_destroy(&recorder);
}

static int nobody(void *user_data, underpass_stream *stream, void **connection) {
  (void)user_data, (void)stream, (void)connection;
  return 1;
}

static size_t nothing(void *connection, const void *bytes, size_t count) {
  (void)connection, (void)bytes;
  return count;
}

static underpass_tun2socks *stopped_within;

static void stop_within(void *user_data, const underpass_packet *packets, size_t count) {
  (void)user_data;
  assert_true(count > 0 && packets[0].bytes > 20);
  underpass_stats stats = {.size = sizeof stats};
  assert_int_equal(underpass_tun2socks_stats(stopped_within, &stats), 0);
  // A packet passed in meanwhile waits for the next turn.
  assert_int_equal(underpass_tun2socks_packets(stopped_within, packets, count), count);
  assert_int_equal(underpass_tun2socks_stop(stopped_within), 0);
}

static void stops_before_it_is_ready_and_within_its_callback_and_leaves_nothing(void **state) {
  (void)state;
  const underpass_carrier carrier = {.size = sizeof carrier, .open = nobody, .write = nothing};
  int descriptors = open_descriptors();
  size_t before = 0;
  for (int i = 0; i < 18; i++) {
    recorder recorder;
    recorder_init(&recorder);
    underpass_tun2socks_options options = {.size = sizeof options, .config = RULES};
    if (i % 3 == 0) {
      options.config = NULL;
      options.carrier = &carrier;
    }
    underpass_callbacks callbacks = recorder_callbacks();
    callbacks.packets = stop_within;
    assert_int_equal(underpass_tun2socks_start(&options, &callbacks, &recorder, &stopped_within), 0);
    // Packets may arrive before it is ready, and wait.
    unsigned char bytes[1500];
    const underpass_packet packet = {bytes, make_echo(bytes, ip("203.0.113.1"))};
    if (i % 2 == 0) {
      assert_int_equal(underpass_tun2socks_packets(stopped_within, &packet, 1), 1);
      recorder_wait(&recorder, &recorder.stopped, 1);
      assert_int_equal(underpass_tun2socks_packets(stopped_within, &packet, 1), UNDERPASS_ERR_STATE);
    }
    underpass_tun2socks_free(stopped_within);
    assert_int_equal(recorder.stopped, 1);
    assert_int_equal(recorder.stopped_status, 0);
    recorder_destroy(&recorder);
    if (i == 6) before = allocated_bytes();
  }
  assert_int_equal(open_descriptors(), descriptors);
  if (allocated_bytes() > before + 1024) fail_msg("%zu bytes more", allocated_bytes() - before);
}

static void refuses_null_wrong_sizes_and_devices_that_do_not_fit(void **state) {
  (void)state;
  underpass_tun2socks *none = (underpass_tun2socks *)&none;
  underpass_tun2socks_options options = {.size = sizeof options, .config = RULES, .device = "tun:underpass9"};
  underpass_callbacks callbacks = {.size = sizeof callbacks, .packets = stop_within};
  assert_int_equal(underpass_tun2socks_start(&options, &callbacks, NULL, &none), UNDERPASS_ERR_OPTION);
  assert_null(none);
  assert_non_null(strstr(underpass_error_text(), "device"));
  options.device = "nothing";
  assert_int_equal(underpass_tun2socks_start(&options, NULL, NULL, &none), UNDERPASS_ERR_OPTION);
  options.device = "pipe:";
  assert_int_equal(underpass_tun2socks_start(&options, NULL, NULL, &none), UNDERPASS_ERR_OPTION);
  options.size = 1;
  assert_int_equal(underpass_tun2socks_start(&options, NULL, NULL, &none), UNDERPASS_ERR_OPTION);
  assert_int_equal(underpass_tun2socks_start(NULL, NULL, NULL, &none), UNDERPASS_ERR_OPTION);
  assert_int_equal(underpass_tun2socks_start(&options, NULL, NULL, NULL), UNDERPASS_ERR_OPTION);
  assert_int_equal(underpass_tun2socks_packets(NULL, NULL, 0), UNDERPASS_ERR_OPTION);
  assert_int_equal(underpass_tun2socks_stop(NULL), UNDERPASS_ERR_OPTION);
  assert_int_equal(underpass_tun2socks_network_changed(NULL), UNDERPASS_ERR_OPTION);
  underpass_tun2socks_free(NULL);

  options = (underpass_tun2socks_options){.size = sizeof options, .config = RULES};
  assert_int_equal(underpass_tun2socks_start(&options, &callbacks, NULL, &none), 0);
  const underpass_packet bad[] = {{NULL, 1}, {"", 0}, {RULES, 65536}};
  for (int i = 0; i < 3; i++)
    assert_int_equal(underpass_tun2socks_packets(none, &bad[i], 1), UNDERPASS_ERR_OPTION);
  assert_int_equal(underpass_tun2socks_packets(none, NULL, 1), UNDERPASS_ERR_OPTION);
  // Whatever it is, core drops it.
  const underpass_packet strange = {"\xff\xff", 2};
  assert_int_equal(underpass_tun2socks_packets(none, &strange, 1), 1);
  underpass_tun2socks_free(none);
}

static void describes_its_plan_and_opens_nothing(void **state) {
  (void)state;
  const char *config = "{\"udp-via\": \"direct\", \"tcp-via\": \"socks5://user:secret@127.0.0.1:1080\"}";
  underpass_tun2socks_options options = {.size = sizeof options, .device = "unix:/does/not/exist/socket", .config = config};
  char *plan;
  assert_int_equal(underpass_tun2socks_plan(&options, NULL, &plan), 0);
  assert_non_null(strstr(plan, "device unix:/does/not/exist/socket"));
  assert_non_null(strstr(plan, "\nudp -> direct"));
  assert_null(strstr(plan, "secret"));
  underpass_text_free(plan);
  options.device = "nonsense:";
  assert_int_equal(underpass_tun2socks_plan(&options, NULL, &plan), UNDERPASS_ERR_OPTION);
  assert_null(plan);
  assert_non_null(strstr(underpass_error_text(), "device"));
  assert_int_equal(underpass_tun2socks_plan(NULL, NULL, &plan), UNDERPASS_ERR_OPTION);
  assert_int_equal(underpass_tun2socks_plan(&options, NULL, NULL), UNDERPASS_ERR_OPTION);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(describes_its_plan_and_opens_nothing),
      cmocka_unit_test(refuses_null_wrong_sizes_and_devices_that_do_not_fit),
      cmocka_unit_test(packets_go_both_ways_by_functions),
      cmocka_unit_test(tcp_is_terminated_without_a_kernel),
      cmocka_unit_test(packets_come_over_a_unix_socket),
      cmocka_unit_test(ends_with_its_device),
      cmocka_unit_test(stops_before_it_is_ready_and_within_its_callback_and_leaves_nothing),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
