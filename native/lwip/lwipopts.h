// The configuration of lwIP: only TCP, without an operating system, on the IP layer of native/io/lwip/ip-layer.c. The caller has
// the flow table, reassembles fragments and checks IP headers. Written for this project from lwIP's own opt.h.
#ifndef UNDERPASS_LWIPOPTS_H
#define UNDERPASS_LWIPOPTS_H

// native/napi has a function of the same name.
#define tcp_init lwip_tcp_init

// No threads, no timers of its own, no sockets: native/io/lwip calls it under one lock, with one connection in its lists.
#define NO_SYS 1
#define SYS_LIGHTWEIGHT_PROT 0
#define LWIP_TIMERS 0
#define LWIP_DONT_PROVIDE_BYTEORDER_FUNCTIONS
#define LWIP_NETCONN 0
#define LWIP_SOCKET 0
#define LWIP_NETIF_API 0
#define LWIP_STATS 0
#ifndef UNDERPASS_LWIP_ASSERTS
#define LWIP_NOASSERT 1
#endif

// Memory comes from native/io/lwip/heap.c, which counts it.
#define MEM_CUSTOM_ALLOCATOR 1
#define MEM_CUSTOM_FREE heap_free
#define MEM_CUSTOM_MALLOC heap_malloc
#define MEM_CUSTOM_CALLOC heap_calloc
#define MEMP_MEM_MALLOC 1
#define MEM_ALIGNMENT 8
#define LWIP_SUPPORT_CUSTOM_PBUF 1
// Only whole segments: there is no Ethernet below.
#define PBUF_LINK_HLEN 0
#define PBUF_LINK_ENCAPSULATION_HLEN 0
#define LWIP_NETIF_TX_SINGLE_PBUF 0

#define LWIP_IPV4 1
#define LWIP_IPV6 1
#define LWIP_IPV6_SCOPES 0
#define LWIP_IPV6_MLD 0
#define LWIP_ND6_TCP_REACHABILITY_HINTS 0
#define LWIP_ICMP 0
#define LWIP_ICMP6 0
#define LWIP_ARP 0
#define LWIP_ETHERNET 0
#define LWIP_RAW 0
#define LWIP_UDP 0
#define LWIP_DNS 0
#define LWIP_DHCP 0
#define LWIP_IGMP 0
#define IP_FRAG 0
#define IP_REASSEMBLY 0
#define LWIP_IPV6_FRAG 0
#define LWIP_IPV6_REASS 0

// Checksums are verified before lwIP and written after it, in one pass with the copy.
#define CHECKSUM_GEN_IP 0
#define CHECKSUM_GEN_TCP 0
#define CHECKSUM_CHECK_IP 0
#define CHECKSUM_CHECK_TCP 0
#define LWIP_CHECKSUM_ON_COPY 0

#define LWIP_TCP 1
#define LWIP_CALLBACK_API 1
#define TCP_LISTEN_BACKLOG 0
// The maximum; a connection's actual MSS follows from the device's MTU (ip-layer.c).
#define TCP_MSS 64960
#define TCP_CALCULATE_EFF_SEND_MSS 1
#define LWIP_WND_SCALE 1
#define TCP_RCV_SCALE 5
#define TCP_WND (1024 * 1024)
#define TCP_SND_BUF (1024 * 1024)
// Limit of a connection's buffers, so that a peer with a tiny MSS cannot occupy more of them than bytes.
#define TCP_SND_QUEUELEN 4096
#define TCP_SNDLOWAT (TCP_SND_BUF / 2)
#define TCP_SNDQUEUELOWAT (TCP_SND_QUEUELEN / 2)
// A small write allocates this much more, so that the next one can join it.
#define TCP_OVERSIZE 1024
#define TCP_QUEUE_OOSEQ 1
// The same for segments that arrived early, which are searched for each such segment.
#define TCP_OOSEQ_MAX_PBUFS 2048
#define LWIP_TCP_SACK_OUT 1
#define LWIP_TCP_MAX_SACK_NUM 4
#define LWIP_TCP_TIMESTAMPS 0
#define TCP_WND_UPDATE_THRESHOLD (TCP_WND / 4)

// One tick of lwIP is 100 ms, for retransmissions after 300 ms instead of 1.5 s.
#define TCP_TMR_INTERVAL 50
// RFC 6298 §2.1.
#define LWIP_TCP_RTO_TIME 1000
// TIME-WAIT lasts 60 s, as in Linux.
#define TCP_MSL 30000UL
#define TCP_SYNMAXRTX 5

// The kernel's defaults, as for other connections of udp-local and tun2socks.
#define LWIP_TCP_KEEPALIVE 0
#define TCP_KEEPIDLE_DEFAULT 7200000UL

#define LWIP_HOOK_FILENAME "lwip-hooks.h"
#define LWIP_HOOK_TCP_ISN(local_ip, local_port, remote_ip, remote_port) \
  ip_layer_sequence_number(local_ip, local_port, remote_ip, remote_port)

#endif
