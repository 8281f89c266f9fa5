/**
 * Counts what makes a server work without any call getting further. Windows are the seconds between two `tick`s.
 *
 * An honest client sends control frames too, but in proportion to the data it gets: an export of 60 MB brings 7,575 WINDOW_UPDATE and 3,803 PING
 * in 1.3 s, and thousands of cancelled reads that had been answered. So frames that we sent count against those that came.
 */
import { ConnectionError, errorCode } from './frames.ts';

const controlPerSecond = 20_000;
const resetsPerSecond = 1000;

export class FloodGuard {
  #control = 0;
  #resets = 0;

  /** A frame that asks for nothing: PING, SETTINGS, PRIORITY, WINDOW_UPDATE, an empty DATA, one of an unknown type or for a stream that is gone. */
  control(weight = 1): void {
    this.#control += weight;
    if (this.#control > controlPerSecond) {
      throw new ConnectionError(errorCode.enhanceYourCalm, `more than ${controlPerSecond} control frames in a second`);
    }
  }

  /** A DATA frame was sent; a client may answer it with updates of two windows and a PING. */
  sent(): void {
    if (this.#control > 0) this.#control -= 3;
  }

  /** The client has taken back a call that nothing had been answered to: all the work was for nothing (CVE-2023-44487). */
  reset(): void {
    this.#resets += 1;
    if (this.#resets > resetsPerSecond) {
      throw new ConnectionError(errorCode.enhanceYourCalm, `more than ${resetsPerSecond} calls taken back in a second`);
    }
  }

  tick(): void {
    this.#control = 0;
    this.#resets = 0;
  }
}
