/** Preloaded (`--import`) by a process that runs code of a plugin's folder outside the daemon. */
import { answerForTroupe } from '../sdk/resolve.ts';

answerForTroupe();
