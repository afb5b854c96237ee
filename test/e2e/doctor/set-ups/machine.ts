import { BUSY_DEVICE, TAKEN_NETWORK } from "../world.ts";
import type { SetUp } from "./set-up.ts";
import { NATIVE_BUILDS, QUICK, to } from "./set-up.ts";

/** Set-ups with faults of this machine and of tun2socks' devices. */
export const MACHINE: readonly SetUp[] = [
  // This machine.
  {
    name: "a key file that is missing",
    fault: "config-bad",
    exitStatus: 2,
    options: () => ["--psk-file", "/nonexistent"],
  },
  {
    name: "an option that is wrong",
    fault: "config-bad",
    exitStatus: 2,
    options: () => ["--server", "nowhere"],
  },
  {
    name: "a key that others may read",
    fault: undefined,
    warnings: ["key-exposed"],
    options: ({ server, ports, hosts }) => [
      "--server",
      `${server}:${ports.tunnel}`,
      "--psk-file",
      `${hosts.directory}/exposed-psk`,
      ...QUICK,
    ],
  },
  {
    name: "a full limit of descriptors",
    fault: "descriptors-full",
    options: to("tunnel"),
    wrap: ["sh", "-c", 'ulimit -n 40; exec "$@"', "sh"],
  },
  {
    name: "a limit of descriptors that is soon reached",
    fault: undefined,
    warnings: ["descriptors-few"],
    options: to("tunnel"),
    wrap: ["sh", "-c", 'ulimit -n 200; exec "$@"', "sh"],
  },
  {
    name: "small receive buffers",
    fault: undefined,
    notes: ["udp-buffer-small"],
    options: to("tunnel"),
    rmemMax: 212_992,
  },
  // tun2socks.
  {
    name: "tun2socks on a network behind the server",
    fault: undefined,
    program: "tun2socks",
    options: to("tunnel", "--route", "198.51.100.0/24"),
  },
  {
    name: "tun2socks without a route",
    fault: undefined,
    notes: ["route-none"],
    program: "tun2socks",
    options: to("tunnel"),
  },
  {
    name: "no native module",
    fault: "native-missing",
    program: "tun2socks",
    wrap: [
      ...["env", "--unset=UNDERPASS_IO", "sh", "-c"],
      `for folder in ${NATIVE_BUILDS.join(" ")}; do [ ! -d $folder ] || mount -t tmpfs none $folder; done; exec "$@"`,
      "sh",
    ],
    options: to("tunnel"),
  },
  {
    name: "no /dev/net/tun",
    fault: "device-missing",
    program: "tun2socks",
    wrap: ["sh", "-c", 'mount -t tmpfs none /dev/net && exec "$@"', "sh"],
    options: to("tunnel"),
  },
  {
    name: "no right to make a device",
    fault: "device-rights",
    program: "tun2socks",
    wrap: ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"],
    options: to("tunnel"),
  },
  {
    name: "a device of another program",
    fault: "device-busy",
    program: "tun2socks",
    options: to("tunnel", "--device", `tun:${BUSY_DEVICE}`),
  },
  {
    name: "an interface that is missing",
    fault: "interface-missing",
    program: "tun2socks",
    options: to("tunnel", "--out-interface", "nope0"),
  },
  {
    name: "a route that exists",
    fault: "route-taken",
    program: "tun2socks",
    options: to("tunnel", "--route", TAKEN_NETWORK),
  },
  {
    name: "a route that leads the tunnel into its own device",
    fault: "route-loop",
    program: "tun2socks",
    options: to("tunnel", "--route", "10.77.0.2/32"),
  },
  {
    name: "the same past the device",
    fault: undefined,
    program: "tun2socks",
    options: to("tunnel", "--route", "10.77.0.2/32", "--out-interface", "veth0"),
  },
  {
    name: "a resolver that is not reached by the device",
    fault: undefined,
    warnings: ["dns-leak"],
    program: "tun2socks",
    resolver: "10.77.0.2",
    options: to("tunnel", "--route", "0.0.0.0/0", "--route", "::/0"),
  },
  {
    name: "IPv6 that does not enter the device",
    fault: undefined,
    warnings: ["ipv6-leak"],
    program: "tun2socks",
    options: to("tunnel", "--route", "0.0.0.0/0"),
  },
];
