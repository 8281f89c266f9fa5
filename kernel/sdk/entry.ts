/** Where a worker begins: how names are found is settled before anything else is imported. */
import { answerForTroupe } from './resolve.ts';

answerForTroupe();
await import('./worker.ts');
