// The WASM operator library (docs/operators.md): one operator a call.

import { GraphletError } from './errors.ts';
import { TensorGuest } from './guest.ts';
import { descriptorBytes, MAX_RANK, type Tensor } from './tensor.ts';
import type { VerifiedModule } from './verify.ts';

/** The operators, in the order of their numbers. */
export const OPERATORS = ['Add', 'Mul', 'Argmax', 'EqualCount'] as const;
export type Operator = (typeof OPERATORS)[number];

/** A loaded `operators.wasm`, in this thread. */
export class OperatorLibrary {
  private constructor(private readonly guest: TensorGuest) {}

  /** Compiles the library and starts it. */
  static async load(module: VerifiedModule): Promise<OperatorLibrary> {
    return new OperatorLibrary(await TensorGuest.start(module, 'library'));
  }

  /** Computes an operator on one or two tensors; throws `refused` with the library's own words. */
  run(operator: Operator, inputs: readonly Tensor[]): Tensor {
    const number = OPERATORS.indexOf(operator);
    if (number < 0) throw new GraphletError('refused', `there is no operator \`${operator}\``);
    const [result, ...more] = this.guest.run(inputs, descriptorBytes([MAX_RANK]), [number]);
    if (!result || more.length > 0) throw new GraphletError('bad_answer', 'the library gave more or less than one result');
    return result;
  }
}
