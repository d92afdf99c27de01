// The worker: loads one module and runs it, away from the page's own thread, so that a module can
// neither stop the page nor see it. The page ends the worker when a call takes too long.

import {
  authenticClaims,
  DATA_TYPES,
  type DataType,
  GraphletError,
  ImageClassifier,
  OperatorLibrary,
  type Operator,
  operands,
  readTensors,
  readTrust,
  type VerifiedModule,
  verify,
  WasmGraph,
  withIssuers,
  writeTensor,
} from '../lib/index.ts';
import { MAX_MODULE_BYTES } from '../lib/sections.ts';
import type {
  Answer,
  Computed,
  Failure,
  Load,
  Loaded,
  Progress,
  Request,
  Source,
  Stage,
  Task,
  Tasks,
} from './messages.ts';

type Tell = (progress: Progress) => void;

let classifier: ImageClassifier | undefined;
let library: OperatorLibrary | undefined;
let graph: WasmGraph | undefined;

const tasks: {
  [T in Task]: (given: Tasks[T]['given'], tell: Tell) => Promise<Tasks[T]['answer']> | Tasks[T]['answer'];
} = {
  classifier: (given, tell) =>
    load(given, tell, async (module) => {
      classifier = await ImageClassifier.load(module, {
        // What an actor has to say is for who develops it.
        // eslint-disable-next-line no-console
        log: (line) => console.warn(line),
      });
      return { card: classifier.card };
    }),
  operators: (given, tell) =>
    load(given, tell, async (module) => {
      library = await OperatorLibrary.load(module);
      return {};
    }),
  graph: (given, tell) =>
    load(given, tell, async (module) => {
      graph = await WasmGraph.load(module);
      return { description: graph.description };
    }),
  classify: ({ picture, top }) => loaded(classifier).classify(new Uint8Array(picture), top),
  operate: ({ operator, dataType, json }) => {
    const input = readTensors(json, DATA_TYPES[dataType as DataType], dataType);
    return timed(() => [loaded(library).run(operator as Operator, operands(input))]);
  },
  compute: ({ json }) => {
    const running = loaded(graph);
    const { tensors } = readTensors(
      json,
      running.description.inputs.map((input) => input.dtype),
    );
    return timed(() => running.run(tensors));
  },
};

function timed(run: () => Parameters<typeof writeTensor>[0][]): Computed {
  const begun = performance.now();
  const results = run();
  const ms = performance.now() - begun;
  const written = results.map(writeTensor);
  return { json: written.length === 1 ? (written[0] ?? '') : `[${written.join(',\n ')}]`, ms };
}

function loaded<T>(value: T | undefined): T {
  if (value === undefined) throw new GraphletError('not_loaded', 'no module is loaded');
  return value;
}

/** Fetches, checks, compiles and starts a module. */
async function load<T>(given: Load, tell: Tell, start: (module: VerifiedModule) => Promise<T>): Promise<Loaded & T> {
  const times: Record<Stage, number> = { download: 0, verify: 0, compile: 0 };
  const stage = async <R>(name: Stage, work: () => Promise<R>): Promise<R> => {
    if (name !== 'download') tell({ stage: name, done: 0, total: 0 });
    const begun = performance.now();
    const result = await work();
    times[name] = performance.now() - begun;
    return result;
  };
  const bytes = await stage('download', () => fetched(given.source, tell));
  const trust = withIssuers(readTrust(given.trust.text), given.trust.added);
  const module = await stage('verify', () => verify(bytes, trust));
  const more = await stage('compile', () => start(module));
  const { claims } = module;
  return {
    bytes: bytes.length,
    digest: module.digest,
    issuer: claims?.issuer ?? '',
    issuerName: module.issuerName,
    subject: claims?.subject ?? '',
    name: claims?.name ?? '',
    version: claims?.version ?? '',
    issuedAt: claims?.issuedAt ?? 0,
    expires: claims?.expires,
    times,
    ...more,
  };
}

async function fetched(source: Source, tell: Tell): Promise<Uint8Array> {
  if ('file' in source) {
    const { size, name } = source.file;
    if (size > MAX_MODULE_BYTES) {
      throw new GraphletError('module_too_large', `the module has ${size} bytes, more than ${MAX_MODULE_BYTES}`);
    }
    try {
      return new Uint8Array(await source.file.arrayBuffer());
    } catch (error) {
      throw new GraphletError('not_loaded', `${name} cannot be read`, { cause: error });
    }
  }
  const { url, bytes } = source;
  const failed = (why: string, cause?: unknown) =>
    new GraphletError('not_loaded', `the module cannot be fetched: ${why}`, { cause });
  const response = await fetch(url).catch((error: unknown) => {
    throw failed('the server does not answer, and the module is not kept in this browser yet', error);
  });
  if (!response.ok || !response.body) throw failed(`the server answers ${response.status}`);
  // No longer than the page says it is.
  const target = new Uint8Array(bytes);
  let done = 0;
  const reader = response.body.getReader();
  for (;;) {
    const { done: ended, value } = await reader.read().catch((error: unknown) => {
      throw failed('the connection broke', error);
    });
    if (ended) break;
    if (done + value.length > bytes) throw failed(`it is longer than ${bytes} bytes: load the page again`);
    target.set(value, done);
    done += value.length;
    tell({ stage: 'download', done, total: bytes });
  }
  if (done < bytes) throw failed(`it has ${done} bytes instead of ${bytes}: load the page again`);
  return target;
}

async function failure(error: unknown, request: Request): Promise<Failure> {
  if (!(error instanceof GraphletError))
    return { code: 'failed', message: error instanceof Error ? error.message : String(error) };
  const told = { code: error.code, message: error.message };
  if (error.code !== 'untrusted_issuer' || !('source' in request.given)) return told;
  // Told so that the page can offer to trust them; the signature held, or it would not be this code.
  const claims = await authenticClaims(await fetched(request.given.source, () => {}));
  return { ...told, issuer: claims.issuer };
}

self.onmessage = async ({ data }: MessageEvent<Request>) => {
  const { id } = data;
  const post = (answer: Answer) => self.postMessage(answer);
  try {
    const run = tasks[data.task] as (given: unknown, tell: Tell) => unknown;
    post({ id, answer: await run(data.given, (progress) => post({ id, progress })) });
  } catch (error) {
    post({ id, error: await failure(error, data).catch(() => ({ code: 'failed', message: String(error) })) });
  }
};
