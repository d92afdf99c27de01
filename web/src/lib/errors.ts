// What can go wrong, told as a sentence for people and a stable code for programs.

/** The codes that programs may compare; those of refused modules are the ones of `graphlet verify`. */
export type ErrorCode =
  // The module is refused (see verify.ts).
  | 'unsigned'
  | 'module_too_large'
  | 'not_wasm'
  | 'component'
  | 'malformed_section'
  | 'token_misplaced'
  | 'token_duplicated'
  | 'token_algorithm'
  | 'token_malformed'
  | 'signature_mismatch'
  | 'hash_mismatch'
  | 'tokens_disagree'
  | 'not_an_actor'
  | 'untrusted_issuer'
  | 'revoked_subject'
  | 'revoked_token'
  | 'revision_too_low'
  | 'capability_not_allowed'
  | 'no_expiry'
  | 'expired'
  | 'not_yet_valid'
  | 'no_ed25519'
  | 'bad_trust'
  // The module cannot be run here.
  | 'cannot_compile'
  | 'not_this_kind'
  | 'out_of_memory'
  | 'trapped'
  | 'bad_answer'
  // What was handed over is not what the module takes.
  | 'bad_json'
  | 'bad_tensor'
  | 'refused'
  | 'image_too_large'
  | 'actor_error'
  // The module did not arrive, or did not answer in time.
  | 'not_loaded'
  | 'timeout';

/** An error with a code. Its message is one sentence, lower case, without a full stop. */
export class GraphletError extends Error {
  override readonly name = 'GraphletError';

  constructor(
    /** What happened, for programs. An actor's own codes (`not_an_image`, …) come as they are. */
    readonly code: ErrorCode | (string & {}),
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** The sentence of whatever was thrown. */
export function sentence(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
