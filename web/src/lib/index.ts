// graphlet for browsers and every other JavaScript with WebAssembly: what the package offers.
//
//     const trust = readTrust(await (await fetch('trust.json')).text());
//     const file = await fetch('digits.wasm');
//     const module = await verify(new Uint8Array(await file.arrayBuffer()), trust);
//     const classifier = await ImageClassifier.load(module);
//     const { classes } = await classifier.classify(picture);

export {
  type Classification, type HttpAnswer, ImageClassifier, MAX_PICTURE_BYTES, type ModelCard, type Scored,
} from './classifier.ts';
export { type ErrorCode, GraphletError } from './errors.ts';
export { type Description, type TensorInfo, WasmGraph } from './graph.ts';
export { OPERATORS, type Operator, OperatorLibrary } from './operators.ts';
export { type Bytes, customSection } from './sections.ts';
export { pickVariant, SIMD_LEVELS, type SimdLevel, simdLevel } from './simd.ts';
export { type DataOf, type DType, DTYPE_NAMES, type Tensor, tensor } from './tensor.ts';
export { DATA_TYPES, type DataType, type Input, operands, readTensors, writeTensor } from './tensor-json.ts';
export type { Claims } from './token.ts';
export { NO_TRUST, readTrust, type Trust, withIssuers } from './trust.ts';
export { authenticClaims, VerifiedModule, verify, type VerifyOptions } from './verify.ts';
export { type HostOptions, type Phase, type Reply, WapcHost } from './wapc.ts';
