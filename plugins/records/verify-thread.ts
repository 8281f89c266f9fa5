/** The full check of the database, indexes included, beside the daemon: minutes on a large file, and only after an unclean stop. */
import { DatabaseSync } from 'node:sqlite';
import { parentPort, workerData } from 'node:worker_threads';

const database = new DatabaseSync((workerData as { path: string }).path, { readOnly: true, timeout: 5000 });
const { integrity_check: result } = database.prepare('PRAGMA integrity_check(1)').get() as { integrity_check: string };
database.close();
parentPort!.postMessage(result);
