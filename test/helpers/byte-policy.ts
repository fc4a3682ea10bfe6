import type { ExecutionContext } from 'ava'
import type { DType } from '../../lib/native.ts'
import type { ModelConfig } from '../../lib/policy/model-config.ts'
import { Policy } from '../../lib/policy/policy.ts'
import { Tokenizer } from '../../lib/policy/tokenizer.ts'
import { plainLlama } from './model-config.ts'
import { tinyTokenizerFiles } from './tiny-tokenizer.ts'

/** Ids 0-255 are bytes, then come words of several bytes, then the end token. */
export function byteTokenizer(): Tokenizer {
  const words = ['ab', 'abc', '>.', '</', ' the', 'é', '\n\n', 'swer>']
  const added = [{ content: '<|end|>', special: true }]
  return new Tokenizer(tinyTokenizerFiles({ words, added, config: { eos_token: '<|end|>' } }))
}

export interface BytePolicyOptions {
  seed?: number
  dtype?: DType
  threads?: number
  config?: Partial<ModelConfig>
}

/** A policy of random weights over bytes; its sizes divide no tile or vector. */
export async function bytePolicy(t: ExecutionContext, options: BytePolicyOptions = {}): Promise<Policy> {
  const { seed = 1, dtype = 'f32', threads = 2 } = options
  const tokenizer = byteTokenizer()
  const config: ModelConfig = {
    ...plainLlama,
    hiddenSize: 36,
    intermediateSize: 58,
    numLayers: 2,
    numHeads: 6,
    numKvHeads: 2,
    headDim: 10,
    vocabSize: tokenizer.vocabSize,
    maxPositions: 512,
    ...options.config,
  }
  const policy = await Policy.initialize(config, { tokenizer, seed, dtype, threads })
  t.teardown(() => policy.dispose())
  return policy
}

/** A prompt of any length; different for every `salt`. */
export function someTokens(length: number, salt: number, vocabSize: number): Int32Array {
  return Int32Array.from({ length }, (_, i) => (salt * 37 + i * 17 + ((i * i) % 13)) % vocabSize)
}
