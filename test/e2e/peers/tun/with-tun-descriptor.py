# Opens a TUN device as descriptor 9, as a VPN app's service would, and becomes the program in argv[2:].
# argv[1]: "plain", or "family" for 4 bytes before each packet.
import fcntl
import os
import struct
import subprocess
import sys

TUNSETIFF = 0x400454CA
IFF_TUN = 1
IFF_NO_PI = 0x1000

device = os.open("/dev/net/tun", os.O_RDWR)
flags = IFF_TUN if sys.argv[1] == "family" else IFF_TUN | IFF_NO_PI
fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH14x", b"given0", flags))
for command in [
    "addr add 198.18.0.1/30 dev given0",
    "addr add fd75:6e64:7270::1/126 dev given0 nodad",
    "link set given0 up",
    "route add 203.0.113.0/24 dev given0",
    "route add 2001:db8:5::/48 dev given0",
]:
    subprocess.run(["ip", *command.split()], check=True)
os.dup2(device, 9, inheritable=True)
os.execvp(sys.argv[2], sys.argv[2:])
