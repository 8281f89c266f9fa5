/**
 * All threads of the process as V8's inspector sees them, from inside: no port is opened. The main thread is reached by `connectToMainThread`, and the workers through
 * it. A thread that does not answer (it is inside a system call) is left out after a moment.
 */
import { Session } from 'node:inspector/promises';
import { Failure } from '../sdk/failure.ts';

const answerMs = 5000;

export interface InspectedThread {
  /** `main`, or the name of the worker. */
  readonly name: string;
  /** One command of the DevTools protocol. @throws Failure Unavailable when the thread does not answer, Internal with the protocol's error */
  post<T>(method: string, params?: object, ms?: number): Promise<T>;
  /** Hears of the thread's events. */
  on(event: string, listener: (params: unknown) => void): void;
}

/** What `inspector` gives, without the types of 300 commands. */
interface Wire {
  post(method: string, params?: object): Promise<unknown>;
  on(event: string, listener: (message: { params: unknown }) => void): unknown;
}

interface FromWorker {
  readonly sessionId: string;
  readonly message: string;
}

interface Attached {
  readonly sessionId: string;
  readonly workerInfo: { readonly title: string };
}

/** Attaches to every thread, lets `work` use them, and detaches whatever happens. */
export async function withThreads<T>(work: (threads: readonly InspectedThread[]) => Promise<T>): Promise<T> {
  const session = new Session();
  session.connectToMainThread();
  // An inspector's answer does not keep a loop alive.
  const awake = setInterval(() => {}, 1000);
  try {
    const wire = session as unknown as Wire;
    const main: InspectedThread = {
      name: 'main',
      post: <R>(method: string, params?: object, ms?: number) =>
        within(wire.post(method, params), 'main', method, ms) as Promise<R>,
      on: (event, listener) => wire.on(event, ({ params }) => listener(params)),
    };
    const workers = new Map<string, WorkerThread>();
    wire.on('NodeWorker.attachedToWorker', ({ params }) => {
      const { sessionId, workerInfo } = params as Attached;
      workers.set(sessionId, new WorkerThread(nameOf(workerInfo.title), sessionId, main));
    });
    wire.on('NodeWorker.receivedMessageFromWorker', ({ params }) => {
      const { sessionId, message } = params as FromWorker;
      workers.get(sessionId)?.receive(message);
    });
    await main.post('NodeWorker.enable', { waitForDebuggerOnStart: false });
    try {
      return await work([main, ...workers.values()]);
    } finally {
      await main.post('NodeWorker.disable');
    }
  } finally {
    clearInterval(awake);
    session.disconnect();
  }
}

/** `[worker 3] troupe.front.v1.front` */
function nameOf(title: string): string {
  return title.replace(/^\[worker \d+\] ?/, '') || title;
}

class WorkerThread implements InspectedThread {
  readonly name: string;
  readonly #sessionId: string;
  readonly #main: InspectedThread;
  readonly #waiting = new Map<number, (reply: { result?: unknown; error?: { message: string } }) => void>();
  readonly #listeners = new Map<string, (params: unknown) => void>();
  #nextId = 1;

  constructor(name: string, sessionId: string, main: InspectedThread) {
    this.name = name;
    this.#sessionId = sessionId;
    this.#main = main;
  }

  on(event: string, listener: (params: unknown) => void): void {
    this.#listeners.set(event, listener);
  }

  post<T>(method: string, params?: object, ms?: number): Promise<T> {
    const id = this.#nextId++;
    const reply = new Promise<T>((resolve, reject) => {
      this.#waiting.set(id, ({ result, error }) => {
        if (error === undefined) resolve(result as T);
        else reject(new Failure('Internal', `thread ${this.name}: ${method}: ${error.message}`));
      });
      this.#main
        .post('NodeWorker.sendMessageToWorker', {
          sessionId: this.#sessionId,
          message: JSON.stringify({ id, method, params }),
        })
        .catch(reject);
    });
    return within(reply, this.name, method, ms).finally(() => this.#waiting.delete(id));
  }

  receive(message: string): void {
    const parsed = JSON.parse(message) as {
      id?: number;
      method?: string;
      params?: unknown;
      result?: unknown;
      error?: { message: string };
    };
    if (parsed.id !== undefined) this.#waiting.get(parsed.id)?.(parsed);
    else if (parsed.method !== undefined) this.#listeners.get(parsed.method)?.(parsed.params);
  }
}

function within<T>(promise: Promise<T>, thread: string, method: string, ms = answerMs): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new Failure('Unavailable', `thread ${thread}: no answer to ${method} within ${ms} ms: unavailable`)),
      ms,
    );
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
