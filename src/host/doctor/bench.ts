import type { Examined } from "./examined.ts";
import type { Session } from "./session.ts";

/** What the checks share. */
export interface Bench extends Examined {
  /** Once a way works. */
  session: Session | undefined;
}
