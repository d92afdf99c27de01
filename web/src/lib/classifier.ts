// An image classifier: the signed actor that `graphlet run` serves, asked as an HTTP server asks it.

import { GraphletError } from './errors.ts';
import { type Packed, pack, unpack } from './msgpack.ts';
import type { VerifiedModule } from './verify.ts';
import { type HostOptions, type Phase, WapcHost } from './wapc.ts';

/** A label and its probability. */
export interface Scored {
  readonly label: string;
  readonly score: number;
}

/** What a picture shows. */
export interface Classification {
  /** Best first. */
  readonly classes: readonly Scored[];
  readonly phases: readonly Phase[];
  readonly totalMs: number;
}

/** What the builder wrote about the model (section `graphlet.model`), as far as it is shown. */
export interface ModelCard {
  readonly name: string;
  readonly version: string;
  readonly description: string;
  readonly licence: string;
  /** Number of labels. */
  readonly labels: number;
}

/** An HTTP answer of the actor. */
export interface HttpAnswer {
  readonly status: number;
  readonly header: Readonly<Record<string, string>>;
  readonly body: Uint8Array;
  readonly phases: readonly Phase[];
  readonly totalMs: number;
}

/** The largest picture, in bytes: the server's limit of a body. */
export const MAX_PICTURE_BYTES = 16 << 20;

/** A classifier that runs in this thread; in a page it belongs into a worker. */
export class ImageClassifier {
  private constructor(
    private readonly host: WapcHost,
    /** The module that runs. */
    readonly module: VerifiedModule,
    /** What it says about its model; undefined when it says nothing. */
    readonly card: ModelCard | undefined,
  ) {}

  /** Compiles the actor and lets it load its model. */
  static async load(module: VerifiedModule, options: HostOptions = {}): Promise<ImageClassifier> {
    const host = await WapcHost.start(module, options);
    await host.send('HealthRequest', pack({ placeholder: true }));
    return new ImageClassifier(host, module, readCard(module));
  }

  /** Names what a picture shows: a file of JPEG, PNG, WebP, GIF or BMP. */
  async classify(picture: Uint8Array, top = 5): Promise<Classification> {
    if (picture.length > MAX_PICTURE_BYTES) {
      throw new GraphletError(
        'image_too_large',
        `the picture has ${(picture.length / 2 ** 20).toFixed(1)} MiB, more than ${MAX_PICTURE_BYTES >> 20} MiB`,
      );
    }
    const best = Math.min(top, this.card?.labels ?? top);
    const answer = await this.request('POST', '/', picture, `top_k=${best}`);
    const body: unknown = parse(answer.body);
    if (answer.status !== 200) {
      const { error, code } = (body ?? {}) as { error?: unknown; code?: unknown };
      throw new GraphletError(
        typeof code === 'string' ? code : 'actor_error',
        typeof error === 'string' ? error : `the actor answered with status ${answer.status}`,
      );
    }
    if (!Array.isArray(body) || !body.every(isScored)) {
      throw new GraphletError('bad_answer', "the actor's answer is malformed");
    }
    return { classes: body, phases: answer.phases, totalMs: answer.totalMs };
  }

  /** Any HTTP request that the actor answers (docs/http.md). */
  async request(method: string, path: string, body: Uint8Array = new Uint8Array(), query = ''): Promise<HttpAnswer> {
    const header = { 'x-graphlet-digest': this.module.digest };
    const request = pack({ method, path, queryString: query, header, body });
    const { response, phases, totalMs } = await this.host.send('HandleRequest', request);
    const answer = unpackAnswer(response);
    return { ...answer, phases, totalMs };
  }
}

function unpackAnswer(response: Uint8Array): Pick<HttpAnswer, 'status' | 'header' | 'body'> {
  let answer: Packed;
  try {
    answer = unpack(response);
  } catch (error) {
    throw new GraphletError('bad_answer', "the actor's answer is malformed", { cause: error });
  }
  if (answer && typeof answer === 'object' && !Array.isArray(answer) && !(answer instanceof Uint8Array)) {
    const { statusCode, header = {}, body = new Uint8Array() } = answer as Record<string, Packed>;
    if (typeof statusCode === 'number' && body instanceof Uint8Array) {
      const fields = Object.entries(header ?? {}).filter((entry): entry is [string, string] => typeof entry[1] === 'string');
      return { status: statusCode, header: Object.fromEntries(fields), body };
    }
  }
  throw new GraphletError('bad_answer', "the actor's answer is malformed");
}

function parse(body: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(body));
  } catch {
    return undefined;
  }
}

function isScored(value: unknown): value is Scored {
  const { label, score } = (value ?? {}) as Partial<Scored>;
  return typeof label === 'string' && typeof score === 'number';
}

function readCard(module: VerifiedModule): ModelCard | undefined {
  type Written = { spec?: { model?: Partial<Record<keyof ModelCard, unknown>> }; labels?: unknown };
  let card: Written | undefined;
  try {
    card = module.json('graphlet.model') as Written | undefined;
  } catch {
    return undefined;
  }
  const model = card?.spec?.model;
  if (!model || typeof card?.labels !== 'number') return undefined;
  const text = (value: unknown) => (typeof value === 'string' ? value : '');
  return {
    name: text(model.name),
    version: text(model.version),
    description: text(model.description),
    licence: text(model.licence),
    labels: card.labels,
  };
}
