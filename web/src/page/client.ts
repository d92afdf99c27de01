// The page's side of a worker: asks, waits no longer than it should, and starts a new worker with
// the same module when the old one had to be ended.

import { GraphletError } from '../lib/errors.ts';
import type { Answer, Failure, Load, Progress, Task, Tasks } from './messages.ts';

/** A failure with who signed, when that is all that is wrong. */
export class TaskError extends GraphletError {
  readonly issuer: string | undefined;

  constructor({ code, message, issuer }: Failure) {
    super(code, message);
    this.issuer = issuer;
  }
}

interface Waiting {
  resolve(answer: unknown): void;
  reject(error: Error): void;
  progress: ((progress: Progress) => void) | undefined;
}

type LoadTask = 'classifier' | 'operators' | 'graph';

// The host's START_TIME: a hundred times what the largest model takes.
const START_MS = 60_000;
// The slowest model we know takes a quarter of the server's ten seconds; a phone takes longer.
const CALL_MS = 30_000;

/** One worker with at most one module in it. */
export class ModuleWorker {
  private worker: Worker | undefined;
  private readonly waiting = new Map<number, Waiting>();
  private last = 0;
  private lastLoad: { task: LoadTask; given: Load } | undefined;
  private reload = false;

  /** Loads a module in place of the one before. */
  async load<T extends LoadTask>(
    task: T,
    given: Load,
    progress?: (progress: Progress) => void,
  ): Promise<Tasks[T]['answer']> {
    // A new worker: what the old module took is given back, and no two are loaded at once.
    this.end(new GraphletError('not_loaded', 'another module was chosen'));
    this.lastLoad = undefined;
    this.reload = false;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const answer = this.post(task, given, [], (told) => {
      // The network may take its time; the module may not.
      if (told.stage === 'compile') timer ??= this.stopAfter(START_MS, 'start');
      progress?.(told);
    });
    try {
      const loaded = await answer;
      this.lastLoad = { task, given };
      return loaded;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Runs the module that is loaded. */
  async run<T extends Exclude<Task, LoadTask>>(
    task: T,
    given: Tasks[T]['given'],
    transfer: Transferable[] = [],
  ): Promise<Tasks[T]['answer']> {
    if (this.reload && this.lastLoad) {
      await this.post(this.lastLoad.task, this.lastLoad.given);
      this.reload = false;
    }
    const timer = this.stopAfter(CALL_MS, 'answer');
    try {
      return await this.post(task, given, transfer);
    } finally {
      clearTimeout(timer);
    }
  }

  private stopAfter(ms: number, what: string): ReturnType<typeof setTimeout> {
    return setTimeout(() => {
      this.reload = true;
      this.end(new GraphletError('timeout', `the module did not ${what} within ${ms / 1000} s and was stopped`));
    }, ms);
  }

  private post<T extends Task>(
    task: T,
    given: Tasks[T]['given'],
    transfer: Transferable[] = [],
    progress?: (progress: Progress) => void,
  ): Promise<Tasks[T]['answer']> {
    this.worker ??= this.begin();
    this.last += 1;
    const id = this.last;
    const answer = new Promise<Tasks[T]['answer']>((resolve, reject) => {
      this.waiting.set(id, { resolve, reject, progress });
    });
    this.worker.postMessage({ id, task, given }, transfer);
    return answer;
  }

  private begin(): Worker {
    const worker = new Worker('worker.js', { type: 'module' });
    worker.onmessage = ({ data }: MessageEvent<Answer>) => {
      const waiting = this.waiting.get(data.id);
      if ('progress' in data) {
        waiting?.progress?.(data.progress);
        return;
      }
      this.waiting.delete(data.id);
      if ('error' in data) waiting?.reject(new TaskError(data.error));
      else waiting?.resolve(data.answer);
    };
    worker.onerror = (event) => {
      event.preventDefault();
      this.reload = true;
      this.end(new GraphletError('not_loaded', `the worker failed: ${event.message || 'it could not be loaded'}`));
    };
    return worker;
  }

  private end(why: Error): void {
    this.worker?.terminate();
    this.worker = undefined;
    for (const waiting of this.waiting.values()) waiting.reject(why);
    this.waiting.clear();
  }
}
