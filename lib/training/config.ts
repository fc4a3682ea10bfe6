/**
 * The one table of settings. Types, defaults, validation, command-line flags and docs/config.md all come from it.
 * Names and defaults follow TRL where it has them; `trl` says where a default differs, and why.
 */
import { providerSpelling } from '../search/provider-spelling.ts'
import { scheduleNames } from '../search/schedule.ts'
import { choice, flag, informationMask, integer, type Kind, number, optional, text } from './setting-kinds.ts'

export type TrainerName = 'ssrl' | 'sft'

export interface Setting<T> {
  kind: Kind<T>
  default: T
  description: string
  /** Where the default is not TRL's. */
  trl?: string
  /** Which trainers know it. */
  for: readonly TrainerName[]
  /** A run may be resumed with another value, since the result doesn't depend on it. */
  free?: boolean
  /** Default of the SFT trainer where it differs. */
  sftDefault?: T
}

type Notes<T> = Omit<Setting<T>, 'kind' | 'default' | 'description' | 'for'>

const both = ['ssrl', 'sft'] as const

function setting<T>(kind: Kind<T>, value: T, description: string, notes: Notes<T> = {}): Setting<T> {
  return { kind, default: value, description, for: both, ...notes }
}

function ssrl<T>(kind: Kind<T>, value: T, description: string, notes: Notes<T> = {}): Setting<T> {
  return { kind, default: value, description, for: ['ssrl'], ...notes }
}

/** Of settings that are ours, and that a resumed run may have otherwise. */
const freely = { trl: 'no such setting in TRL', free: true } as const

function sft<T>(kind: Kind<T>, value: T, description: string, notes: Notes<T> = {}): Setting<T> {
  return { kind, default: value, description, for: ['sft'], ...notes }
}

export const settings = {
  // Length of the run
  maxSteps: setting(integer({ min: 1 }), 100, 'Optimizer steps of the whole run', {
    trl: 'TRL: -1 (epochs decide); a run here always states its length',
  }),
  seed: setting(
    integer({ min: 0, max: Number.MAX_SAFE_INTEGER }),
    42,
    'Seed of sampling and of the data order',
  ),

  // Rollout
  promptsPerStep: ssrl(
    integer({ min: 1 }),
    16,
    'Questions per optimizer step; each gives numGenerations trajectories',
    {
      trl: 'TRL counts completions per device; SSRL used 256 questions',
    },
  ),
  numGenerations: ssrl(
    integer({ min: 1 }),
    8,
    'Trajectories per question (the group G); estimators that compare within a group need 2; SSRL used 5',
  ),
  maxPromptLength: ssrl(
    optional(integer({ min: 1 })),
    null,
    'Prompts of more tokens are dropped at load, with a count; null: what the context leaves',
    {
      trl: 'TRL cut prompts at 512',
    },
  ),
  maxCompletionLength: ssrl(integer({ min: 1 }), 256, 'Largest number of new tokens; SSRL used 4096'),
  temperature: ssrl(
    number({ above: 0 }),
    1,
    'Sampling temperature, part of every log-prob; 0 (greedy) cannot be trained on',
  ),
  topP: ssrl(
    number({ above: 0, max: 1 }),
    1,
    'Only 1: truncated sampling changes the distribution that is trained',
  ),
  topK: ssrl(integer({ min: 0 }), 0, 'Only 0: see topP'),
  minP: ssrl(number({ min: 0, max: 1 }), 0, 'Only 0: see topP'),
  stopAtAnswer: ssrl(
    flag(),
    true,
    'Stop at </answer>; false trains the end token, as the SSRL reference does',
  ),
  promptTemplate: setting(
    text('a template'),
    'self-search',
    'Instruction: a built-in name, a file, or the wording itself, with {question} where the question stands',
    {
      trl: 'no such setting in TRL',
    },
  ),

  // Searches
  searchSchedule: ssrl(
    choice(...scheduleNames),
    'self',
    'Who answers a search: the policy itself (self), the provider (real), the provider the first realSearches times (first), where the query is less certain than the one before (entropy), with a probability that changes over the run (curriculum), or the provider with a message for actions that are none (multi-turn, Search-R1)',
    { trl: 'no such setting in TRL' },
  ),
  searchProvider: ssrl(
    optional(text(providerSpelling)),
    null,
    `The provider: ${providerSpelling}; null: the one that the program passes`,
  ),
  realSearches: ssrl(integer({ min: 0 }), 1, 'Schedule first: searches of a trajectory that are real (K)'),
  realShareStart: ssrl(
    number({ min: 0, max: 1 }),
    0,
    'Schedule curriculum: share of real answers at the first step',
  ),
  realShareEnd: ssrl(
    number({ min: 0, max: 1 }),
    1,
    'Schedule curriculum: share of real answers at the last step',
  ),
  maxSearches: ssrl(
    optional(integer({ min: 0 })),
    null,
    'Searches of a trajectory; a further one ends it. null: no limit, and 4 with multi-turn, where actions that are none count too',
  ),
  searchTopK: ssrl(integer({ min: 1 }), 3, 'Documents for a query'),
  maxDocumentTokens: ssrl(
    integer({ min: 1 }),
    200,
    'Tokens of one document at most; Search-R1: 500 for all of them',
  ),
  documentLayout: ssrl(
    choice('numbered', 'plain'),
    'numbered',
    'How documents stand in their block: Doc 1(Title: …) text, with empty lines around the block, or the texts alone',
  ),
  searchFailure: ssrl(
    choice('self', 'empty', 'fail'),
    'self',
    'Where the provider fails: the policy answers itself, the block stays empty, or the step fails',
  ),
  searchTimeout: ssrl(number({ above: 0 }), 10, 'Seconds that one call of the provider may take', {
    free: true,
  }),
  searchAttempts: ssrl(integer({ min: 1 }), 4, 'Calls of the provider before a search has failed', {
    free: true,
  }),
  searchConcurrency: ssrl(integer({ min: 1 }), 8, 'Calls of the provider under way at once', { free: true }),
  searchCache: ssrl(
    optional(text('a file')),
    null,
    'SQLite file that answers are remembered in; null: none',
    { free: true },
  ),
  searchCacheMode: ssrl(
    choice('record', 'replay'),
    'record',
    'record: ask for what the cache lacks, and remember it; replay: the cache alone answers',
    { free: true },
  ),
  noiseStart: ssrl(
    number({ min: 0, max: 1 }),
    0,
    'Provider policy: probability of noisy documents before the first step (ZeroSearch)',
  ),
  noiseEnd: ssrl(number({ min: 0, max: 1 }), 0.5, 'Provider policy: the same at the last step'),
  leakAnswer: ssrl(
    flag(),
    false,
    "Provider policy: put question and golden answers into its prompt, as ZeroSearch's code does",
  ),

  // Reward
  answerReward: ssrl(
    choice('exactMatch', 'f1', 'coverExactMatch', 'majorityVote'),
    'exactMatch',
    "Score of the answer; majorityVote needs no golden answers: the majority of the group's answers is the label (TTRL)",
  ),
  format: ssrl(
    choice('strict', 'reference'),
    'strict',
    'Format score: the strict grammar, or the table of the SSRL reference with its exploits',
  ),
  formatWeight: ssrl(number({ min: 0, max: 1 }), 0.1, 'λ_f: reward = (1 - λ_f)·answer + λ_f·format'),
  overlongBuffer: ssrl(
    optional(integer({ min: 1 })),
    null,
    'Tokens before maxCompletionLength over which the reward falls by up to 1 (DAPO: 4096 of 20480); null: no penalty',
    { trl: 'a reward function of its own there' },
  ),
  dynamicSampling: ssrl(
    flag(),
    false,
    'Drop questions whose rewards are all equal and sample new ones until promptsPerStep are left (DAPO)',
    { trl: 'no such setting in TRL' },
  ),
  maxGenerationBatches: ssrl(
    integer({ min: 1 }),
    10,
    'Batches that dynamicSampling samples for one step at most; it then learns from what there is',
    { trl: 'no such setting in TRL' },
  ),
  rewardTimeout: ssrl(number({ above: 0 }), 60, "Seconds that a user's reward function may take", {
    free: true,
  }),

  // Advantages
  estimator: ssrl(
    choice('grpo', 'rloo', 'reinforce_plus_plus', 'reinforce_plus_plus_baseline', 'gae'),
    'grpo',
    'Baseline and scale of advantages: the group (grpo), the others of the group (rloo), the batch (reinforce_plus_plus), group and batch (reinforce_plus_plus_baseline), a learned critic (gae: PPO)',
    { trl: 'TRL has a trainer for each' },
  ),
  scaleRewards: ssrl(
    choice('group', 'batch', 'none'),
    'group',
    'Of grpo: divide advantages by the standard deviation of the group, of the batch, or not at all',
  ),
  advantageEpsilon: ssrl(number({ above: 0 }), 1e-6, 'Added to that standard deviation', {
    trl: 'TRL: 1e-4; SSRL: 1e-6',
  }),

  // Critic
  critic: ssrl(
    choice('copy', 'shared'),
    'copy',
    "Of gae: a value head on a copy of the policy that learns beside it, or on the policy's own trunk",
    { trl: 'its PPO takes a value model' },
  ),
  gamma: ssrl(number({ above: 0, max: 1 }), 1, 'Of gae: discount γ of a later reward, by token'),
  gaeLambda: ssrl(number({ min: 0, max: 1 }), 1, 'Of gae: λ; 1 is the return itself', {
    trl: 'lam of its PPO: 0.95',
  }),
  criticLearningRate: ssrl(
    number({ above: 0 }),
    1e-5,
    'Peak learning rate of the critic (with a shared trunk, of its head); falls as learningRate does',
    { trl: 'no such setting in TRL' },
  ),
  criticWarmupSteps: ssrl(integer({ min: 0 }), 0, 'First steps in which the critic alone learns', {
    trl: 'no such setting in TRL',
  }),
  valueClip: ssrl(
    optional(number({ above: 0 })),
    0.5,
    'How far a value may move from that of sampling before its gradient ends; null: any distance',
    { trl: 'cliprange_value of its PPO: 0.2' },
  ),
  valueCoefficient: ssrl(
    number({ above: 0 }),
    0.1,
    "Weight of the value loss beside the policy's on a shared trunk",
    { trl: 'vf_coef of its PPO' },
  ),

  // Loss
  lossType: ssrl(
    choice('dapo', 'bnpo', 'grpo', 'dr_grpo'),
    'dapo',
    "dapo: mean over all active tokens of the step (SSRL's token mean; bnpo is an alias, since the mean is global here); grpo: per sequence, then over sequences; dr_grpo: sum / (sequences · maxCompletionLength)",
  ),
  beta: ssrl(
    number({ min: 0 }),
    0.001,
    'Weight of the KL against the frozen reference; 0 makes no reference',
    { trl: 'TRL: 0; SSRL: 0.001' },
  ),
  klEstimator: ssrl(
    choice('k1', 'k2', 'k3'),
    'k3',
    'Estimate of that KL from one token, d = log p_ref - log p: k1 = -d, k2 = d²/2, k3 = e^d - d - 1',
    { trl: 'kl_estimator of its PPO' },
  ),
  klPlacement: ssrl(
    choice('loss', 'reward'),
    'loss',
    'Where the KL goes: a term of the loss, or -beta·KL as a reward of each token',
    { trl: 'a trainer decides' },
  ),
  epsilon: ssrl(number({ above: 0, below: 1 }), 0.2, 'Clip range below 1'),
  epsilonHigh: ssrl(
    optional(number({ above: 0 })),
    null,
    'Clip range above 1; null: the same as epsilon (DAPO: 0.28)',
  ),
  dualClip: ssrl(
    optional(number({ above: 1 })),
    3,
    'Bound c of the ratio for negative advantages; null: none',
    { trl: 'TRL: none (delta); SSRL: 3' },
  ),
  importanceSamplingLevel: ssrl(
    choice('token', 'sequence'),
    'token',
    'A ratio for each token, or one for all tokens of a trajectory: the exponential of their mean log-ratio (GSPO, with epsilon 3e-4 and epsilonHigh 4e-4)',
  ),
  klCovRatio: ssrl(
    optional(number({ above: 0, max: 1 })),
    null,
    'KL-Cov instead of clipping: the share of tokens, those of the largest covariance of log-prob and advantage, that are held near where they were (2e-4); null: clipping',
    { trl: 'no such setting in TRL' },
  ),
  klCovCoefficient: ssrl(number({ above: 0 }), 1, 'Weight of |log p - log p_old| at those tokens', {
    trl: 'no such setting in TRL',
  }),
  numIterations: ssrl(
    integer({ min: 1 }),
    1,
    'Passes over each batch of trajectories (μ); at 1, with one mini-batch, the ratio is exactly 1 and clipping never acts',
  ),
  numMiniBatches: ssrl(
    integer({ min: 1 }),
    1,
    'Optimizer steps per pass, each on a share of the questions; from the second on the ratio leaves 1',
    { trl: 'num_mini_batches of its PPO' },
  ),
  informationMask: ssrl(
    informationMask(),
    'information',
    'Which tokens stay out of the loss: information blocks that answer a search, all of them, none; or the weight they get',
    {
      trl: 'no such setting in TRL',
    },
  ),
  maskTruncatedCompletions: ssrl(flag(), false, 'Keep completions that hit the length limit out of the loss'),

  // Data of supervised fine-tuning
  batchSize: sft(integer({ min: 1 }), 32, 'Examples per optimizer step', { trl: 'TRL: 8 per device' }),
  shuffle: sft(flag(), true, 'Shuffle the examples anew in every epoch; false: in the order given'),
  endToken: sft(flag(), true, 'Put the end token after each completion, and train it'),
  completionOnly: sft(flag(), true, 'Train on completion tokens only; false: on all tokens'),
  maxLength: sft(
    optional(integer({ min: 2 })),
    null,
    'Examples of more tokens are dropped at load, with a count; null: the context',
    { trl: 'TRL truncates at 1024' },
  ),
  packing: sft(
    flag(),
    false,
    'Fill each row with whole examples up to packedLength tokens; they do not see each other',
  ),
  packedLength: sft(integer({ min: 2 }), 1024, 'Tokens of a packed row; batchSize then counts rows'),

  // Optimizer
  learningRate: setting(number({ above: 0 }), 1e-6, 'Peak learning rate of AdamW', { sftDefault: 2e-5 }),
  adamBeta1: setting(number({ min: 0, below: 1 }), 0.9, 'AdamW β1'),
  adamBeta2: setting(number({ min: 0, below: 1 }), 0.999, 'AdamW β2'),
  adamEpsilon: setting(number({ above: 0 }), 1e-8, 'AdamW ε'),
  weightDecay: setting(number({ min: 0 }), 0.01, 'Decoupled weight decay, on every parameter', {
    trl: 'TRL: 0; SSRL: 0.01',
  }),
  maxGradNorm: setting(number({ above: 0 }), 1, 'Global norm that gradients are clipped to'),
  schedule: setting(choice('constant', 'linear', 'cosine'), 'constant', 'Learning rate after warm-up', {
    trl: 'TRL: linear; SSRL: constant',
  }),
  scheduleFloor: setting(
    number({ min: 0, max: 1 }),
    0,
    'Share of the learning rate that linear and cosine end at',
  ),
  scheduleHold: setting(
    number({ min: 0, max: 1 }),
    0,
    'Share of maxSteps before which linear and cosine do not begin to fall',
  ),
  warmupSteps: setting(integer({ min: 0 }), 0, 'Steps of linear warm-up'),
  warmupRatio: setting(number({ min: 0, max: 1 }), 0, 'The same as a share of maxSteps; not both', {
    trl: 'SSRL: 0.02',
  }),
  microBatchTokens: setting(
    integer({ min: 1 }),
    2048,
    'Tokens per forward and backward pass, a prompt that neighbours share counted once; changes memory and speed only',
    {
      trl: 'TRL counts sequences per device',
    },
  ),

  // Evaluation, checkpoints, logs
  evaluateEvery: setting(
    integer({ min: 0 }),
    0,
    'Evaluate after every so many steps, and after the last; 0: only after the last',
  ),
  evaluationSamples: ssrl(integer({ min: 1 }), 1, 'Samples per question when evaluating'),
  evaluationTemperature: ssrl(number({ min: 0 }), 0, 'Temperature when evaluating; 0 is greedy'),
  evaluationLimit: setting(
    optional(integer({ min: 1 })),
    null,
    'Evaluate on the first so many questions only',
  ),

  // Collapse alarms
  alarms: ssrl(
    choice('off', 'warn', 'stop'),
    'warn',
    'Signs of a collapse: not watched, told, or told and the run stopped after the step, evaluated and saved',
    { trl: 'no such setting in TRL', free: true },
  ),
  alarmWindow: ssrl(integer({ min: 1 }), 10, 'Steps whose mean is looked at', freely),
  alarmFall: ssrl(
    optional(number({ above: 0, max: 1 })),
    0.5,
    'Share of its best mean that format score or exact match may lose; null: no alarm',
    freely,
  ),
  alarmEntropyMin: ssrl(
    optional(number({ above: 0 })),
    0.01,
    'Entropy in nats that the mean may not fall below; null: no alarm',
    freely,
  ),
  alarmEntropyMax: ssrl(
    optional(number({ above: 0 })),
    6,
    'Entropy in nats that the mean may not rise above; null: no alarm',
    freely,
  ),
  alarmZeroVariance: ssrl(
    optional(number({ min: 0, max: 1 })),
    0.95,
    'Share of groups that may have equal rewards; null: no alarm',
    freely,
  ),
  alarmRepetition: ssrl(
    optional(number({ above: 0, max: 1 })),
    0.5,
    'Share of all answers that may be one and the same, whatever the question; null: no alarm',
    freely,
  ),
  alarmLengthGrowth: ssrl(
    optional(number({ above: 1 })),
    3,
    'Times the length at the start that completions may have; null: no alarm',
    freely,
  ),
  outputDirectory: setting(
    optional(text('a folder')),
    null,
    'Folder of records, trajectories, checkpoints and the final policy; null: nothing is written',
    { free: true },
  ),
  saveEvery: setting(
    integer({ min: 0 }),
    0,
    'Checkpoint after every so many steps, and after the last; 0: only after the last, and the best',
    {
      trl: 'TRL: 500',
      free: true,
    },
  ),
  keep: setting(integer({ min: 1 }), 2, 'Checkpoints kept, the best one aside', {
    trl: 'TRL: all of them',
    free: true,
  }),
  logTrajectories: ssrl(integer({ min: 0 }), 1, 'Write the trajectories of every so many steps; 0: none', {
    free: true,
  }),
} as const

export type SettingName = keyof typeof settings

type ValueOf<S> = S extends Setting<infer T> ? T : never
/** Every setting, defaults filled in. Those that a trainer doesn't know keep their default. */
export type Config = { -readonly [K in SettingName]: ValueOf<(typeof settings)[K]> }

/** Names of the settings that a trainer knows, in the table's order. */
export function settingNames(trainer: TrainerName): SettingName[] {
  return (Object.keys(settings) as SettingName[]).filter((name) => lookup(name).for.includes(trainer))
}

export function lookup(name: SettingName): Setting<unknown> {
  return settings[name] as Setting<unknown>
}

/** The default of a setting for one trainer. */
export function defaultOf(name: SettingName, trainer: TrainerName): unknown {
  const { sftDefault, default: value } = lookup(name)
  return trainer === 'sft' && sftDefault !== undefined ? sftDefault : value
}
