/** Marks in a thread of its own, on a connection of its own: the writer goes on, and what was read ends with the thread. */
import { DatabaseSync } from 'node:sqlite';
import { parentPort, workerData } from 'node:worker_threads';
import { mark } from './graph.ts';

const database = new DatabaseSync((workerData as { path: string }).path, { readOnly: true, timeout: 5000 });
const result = mark(database);
database.close();
parentPort!.postMessage(result);
