/** The first descriptor that systemd passes (sd_listen_fds(3)). */
const FIRST_DESCRIPTOR = 3;

/** The descriptors that systemd passed to this process under a name, in their order. */
export function passedDescriptors(name: string, environment: NodeJS.ProcessEnv = process.env): number[] {
  const { LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES = "" } = environment;
  // They may have been meant for a parent of this process.
  if (Number(LISTEN_PID) !== process.pid) return [];
  const names = LISTEN_FDNAMES.split(":");
  return Array.from({ length: Number(LISTEN_FDS) || 0 }, (_, place) => place).flatMap((place) =>
    (names[place] || "unknown") === name ? [FIRST_DESCRIPTOR + place] : [],
  );
}
