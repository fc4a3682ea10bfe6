import { mkdir, rename, rm, stat } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { SsrlError } from '../errors.ts'
import type { NativeGgufTensor } from '../native.ts'
import { runNative } from '../native-call.ts'
import { type GgufEntry, ggufModelMetadata, ropeFrequencyFactors } from './gguf-config.ts'
import { ggufTokenizerMetadata } from './gguf-tokenizer.ts'
import type { ModelConfig } from './model-config.ts'
import { nativePolicyOf } from './native-handle.ts'
import { ggufTensorName, parameterShapes, permutedHeads } from './parameters.ts'
import type { Policy } from './policy.ts'
import { asIoError, syncPath } from './save.ts'

export const ggufDtypes = ['f32', 'f16', 'bf16', 'q8_0'] as const
export type GgufDtype = (typeof ggufDtypes)[number]
const nativeNames = { f32: 'F32', f16: 'F16', bf16: 'BF16', q8_0: 'Q8_0' } as const

export interface GgufOptions {
  /**
   * type of the matrices; default the type that the policy computes in. f32 keeps the master weights exactly. Vectors
   * (norms, biases) stay f32, as readers want them
   */
  dtype?: GgufDtype
  /** general.name in the file */
  name?: string
  signal?: AbortSignal
}

export interface GgufExport {
  /** absolute path */
  path: string
  bytes: number
  /** how many tensors have which type */
  types: Record<string, number>
}

/**
 * Writes a policy as one GGUF v3 file with tokenizer and chat template, which replaces an existing file once it is
 * complete. A matrix whose rows are no multiple of 32 values can't be Q8_0 and becomes F16.
 * @throws SsrlError ERR_INVALID_ARG for an unknown dtype, or weights that F16 can't hold; ERR_MODEL_FORMAT for what
 *   GGUF's readers would not compute; ERR_TOKENIZER for a tokenizer that has no name there; ERR_IO
 */
export async function exportGguf(
  policy: Policy,
  file: string,
  options: GgufOptions = {},
): Promise<GgufExport> {
  const native = nativePolicyOf(policy)
  const { dtype = policy.dtype, name, signal } = options
  if (!ggufDtypes.includes(dtype)) {
    throw new SsrlError(
      'ERR_INVALID_ARG',
      `Expected ${ggufDtypes.join(', ')} for dtype but received ${dtype}`,
    )
  }
  const tensors = ggufTensors(policy.config, dtype)
  const metadata = {
    ...ggufModelMetadata(policy.config, name, nativeNames[dtype]),
    ...tokenizerMetadata(policy),
  }
  const path = resolve(file)
  await replaceFile(path, (partial) =>
    runNative((abort) => native.writeGguf(partial, tensors, metadata, abort), signal),
  )
  return { path, bytes: (await stat(path)).size, types: countTypes(tensors) }
}

/** Every tensor of the file, in the order of the network. */
export function ggufTensors(config: ModelConfig, dtype: GgufDtype): NativeGgufTensor[] {
  const tensors = [...parameterShapes(config)].map(
    ([parameter, shape]): NativeGgufTensor => ({
      name: ggufTensorName(parameter),
      dtype: tensorType(shape, dtype),
      parameter,
      permuteHeads: permutedHeads(config, parameter),
    }),
  )
  const values = ropeFrequencyFactors(config)
  if (values && config.architecture !== 'LlamaForCausalLM') {
    throw new SsrlError(
      'ERR_MODEL_FORMAT',
      `GGUF has no rope scaling of Llama 3's kind for ${config.architecture}; export it in Hugging Face layout`,
    )
  }
  return values ? [...tensors, { name: 'rope_freqs.weight', dtype: 'F32', values }] : tensors
}

function tensorType(shape: readonly number[], dtype: GgufDtype): string {
  if (shape.length === 1) return 'F32'
  if (dtype === 'q8_0' && shape.at(-1)! % 32 !== 0) return 'F16'
  return nativeNames[dtype]
}

function tokenizerMetadata({ config, tokenizer, endTokenIds }: Policy): Record<string, GgufEntry> {
  if (!tokenizer) return { 'tokenizer.ggml.model': { type: 'string', value: 'none' } }
  return ggufTokenizerMetadata(tokenizer, config.vocabSize, endTokenIds)
}

function countTypes(tensors: readonly NativeGgufTensor[]): Record<string, number> {
  const types: Record<string, number> = {}
  for (const { dtype } of tensors) types[dtype] = (types[dtype] ?? 0) + 1
  return types
}

/** Lets `write` make a file beside `path`, and puts it in its place when it is whole and on the disk. */
async function replaceFile(path: string, write: (partial: string) => Promise<void>): Promise<void> {
  const partial = `${path}.${process.pid}.partial`
  try {
    await mkdir(dirname(path), { recursive: true })
    await write(partial)
    await rename(partial, path)
    await syncPath(dirname(path))
  } catch (error) {
    // What could not be made need not be removed; the first error is the one that says why.
    await rm(partial, { force: true }).catch(() => {})
    throw asIoError(error, path)
  }
}
