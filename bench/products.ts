import type { ModelConfig } from '../lib/policy/model-config.ts'

export type ProductConfig = Pick<
  ModelConfig,
  'hiddenSize' | 'intermediateSize' | 'numHeads' | 'numKvHeads' | 'headDim' | 'vocabSize'
>

/** [inputs, outputs] of a layer's four products, and last of the projection to the vocabulary. */
export function productsOf(config: ProductConfig): [number, number][] {
  const { hiddenSize, intermediateSize, numHeads, numKvHeads, headDim, vocabSize } = config
  return [
    [hiddenSize, (numHeads + 2 * numKvHeads) * headDim],
    [numHeads * headDim, hiddenSize],
    [hiddenSize, 2 * intermediateSize],
    [intermediateSize, hiddenSize],
    [hiddenSize, vocabSize],
  ]
}
