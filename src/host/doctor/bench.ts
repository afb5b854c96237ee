import type { Examined } from "./examined.ts";
import type { Session } from "./session.ts";

/** What the checks share. */
export interface Bench extends Examined {
  /** Undefined until a way works. */
  session: Session | undefined;
}
