// Passes IP packets to the library and back by functions, as iOS's NEPacketTunnelProvider does: packets SERVER:PORT PSK TUN-NAME [SOCKS5-URL].
// The packets come from a TUN device that this program opens (Linux, as root); the caller sets its addresses and routes.
//   cc packets.c -o packets -pthread $(pkg-config --cflags --libs underpass)
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <underpass.h>
#include <unistd.h>

#define PACKET_BYTES 65535

// Each read and write carries one packet.
static int device = -1;

static void on_packets(void *user_data, const underpass_packet *packets, size_t count) {
  (void)user_data;
  // A packet that the device does not accept is lost, as on any network.
  for (size_t i = 0; i < count; i++)
    if (write(device, packets[i].data, packets[i].bytes) < 0 && errno == EBADF) return;
}

static void *read_packets(void *data) {
  static unsigned char bytes[PACKET_BYTES];
  for (;;) {
    ssize_t count = read(device, bytes, sizeof bytes);
    if (count <= 0) return NULL;
    underpass_packet packet = {bytes, (size_t)count};
    // Less than one: the instance has stopped, or its queue is full. One call with several packets is cheaper than several calls.
    if (underpass_tun2socks_packets(data, &packet, 1) < 0) return NULL;
  }
}

static void on_ready(void *user_data, const underpass_addresses *addresses) {
  (void)user_data;
  printf("ready: %s\n", addresses->listen[0]);
  fflush(stdout);
}

static int open_device(const char *name) {
  struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
  int fd = open("/dev/net/tun", O_RDWR);
  if (fd < 0) return -1;
  snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
  return ioctl(fd, TUNSETIFF, &request) == 0 ? fd : -1;
}

static underpass_tun2socks *start(const char *server, const char *psk, const char *config) {
  underpass_callbacks callbacks = {.size = sizeof callbacks, .ready = on_ready, .packets = on_packets};
  underpass_tun2socks_options options = {.size = sizeof options, .server = server, .psk = psk, .config = config};
  options.psk_bytes = strlen(psk);
  underpass_tun2socks *tun2socks;
  if (underpass_tun2socks_start(&options, &callbacks, NULL, &tun2socks) == 0) return tun2socks;
  fprintf(stderr, "%s\n", underpass_error_text());
  return NULL;
}

int main(int argc, char **argv) {
  if (argc < 4) {
    fprintf(stderr, "usage: packets SERVER:PORT PSK TUN-NAME [SOCKS5-URL]\n");
    return 2;
  }
  char config[512];
  snprintf(config, sizeof config, "{\"tcp-via\": \"%s\"}", argc > 4 ? argv[4] : "reject");
  device = open_device(argv[3]);
  if (device < 0) {
    perror(argv[3]);
    return 1;
  }
  underpass_tun2socks *tun2socks = start(argv[1], argv[2], config);
  pthread_t reader;
  if (tun2socks == NULL || pthread_create(&reader, NULL, read_packets, tun2socks) != 0) return 1;
  getchar();
  // The thread that uses the device ends first.
  pthread_cancel(reader);
  pthread_join(reader, NULL);
  underpass_tun2socks_free(tun2socks);
  return 0;
}
