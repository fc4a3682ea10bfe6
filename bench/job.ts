import type { ModelConfig } from '../lib/policy/model-config.ts'

/** What a contender's process reads from stdin as JSON. Token ids are those of the model at `model`. */
export type Job = { model: string; dtype: string; threads: number; warmUps: number; repeats: number } & Work

export type Work =
  | GenerateWork
  | PrefillWork
  | LearnerWork
  | GrpoWork
  | { kind: 'load' }
  | TrainingWork
  | CorpusWork
  | SearchWork
  | KernelWork
  | LimitWork
  | RegretWork

export interface GenerateWork {
  kind: 'generate'
  prompts: number[][]
  /** samples of each prompt */
  n: number
  /** new tokens of each prompt's samples */
  newTokens: number[]
  /** greedy tokens of the first prompts, to compare before the figure counts; 0: none */
  greedyTokens: number
}

export interface PrefillWork {
  kind: 'prefill'
  prompts: number[][]
}

export interface LearnerWork {
  kind: 'learner'
  sequences: number[][]
  /** leading tokens of each sequence that are not in the loss */
  promptTokens: number
}

export interface GrpoWork {
  kind: 'grpo-step'
  prompts: number[][]
  /** the prompts as text, for those who tokenize themselves: the same number of tokens */
  texts: string[]
  n: number
  newTokens: number
  beta: number
}

/** Steps of SSRLTrainer: `loop` looks at the main thread meanwhile, `memory` at what the process holds. */
export interface TrainingWork {
  kind: 'loop-lag' | 'typescript' | 'memory'
  steps: number
  questions: { question: string; answers: string[] }[]
  promptsPerStep: number
  n: number
  newTokens: number
}

export interface CorpusWork {
  kind: 'search-index' | 'search-query'
  passages: number
  queries: number
}

/** A rollout whose searches are answered from outside. */
export interface SearchWork {
  kind: 'search-busy'
  questions: string[]
  n: number
  newTokens: number
  /** milliseconds that an answer takes */
  latency: number
}

export interface KernelWork {
  kind: 'matmul' | 'attention' | 'policy-loss' | 'sampling'
  config: Pick<
    ModelConfig,
    'hiddenSize' | 'intermediateSize' | 'numHeads' | 'numKvHeads' | 'headDim' | 'vocabSize'
  >
  rows: number
}

export interface LimitWork {
  kind: 'limit'
  /** [inputs, outputs] of each product */
  products: [number, number][]
  rows: number[]
}

/** By how much greedy tokens fall short of the likeliest one, under `model`. */
export interface RegretWork {
  kind: 'regret'
  prompts: number[][]
  /** by contender, one row a prompt */
  greedy: number[][][]
}

/** The last line of a contender's stdout. */
export interface Result {
  /** of each timed repetition; or the figures themselves where the variant's unit is not made from seconds */
  values: number[]
  /** bytes, VmHWM */
  peak: number
  version: string
  greedy?: number[][]
  loss?: number
  gradNorm?: number
  /** share of the layers that the learner ran forward twice */
  recomputed?: number
  /** [rows][products] seconds of the fastest call */
  limit?: number[][]
  /** largest regret by contender, in nats */
  regret?: number[]
  note?: string
}
