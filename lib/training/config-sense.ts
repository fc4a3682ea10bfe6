/** Settings that make no sense together: each is refused with the reason, and none is ignored. */
import { SsrlError } from '../errors.ts'
import type { Config, SettingName } from './config.ts'

interface Need {
  isMet(config: Config): boolean
  /** Completes "NAME needs …". */
  reason: string
}

const withGroups: readonly Config['estimator'][] = ['grpo', 'rloo', 'reinforce_plus_plus_baseline']

const isSearched: Need = {
  isMet: ({ searchSchedule }) => searchSchedule !== 'self',
  reason: "a searchSchedule other than 'self', where nobody is asked",
}
const scheduled = (schedule: Config['searchSchedule']): Need => ({
  isMet: ({ searchSchedule }) => searchSchedule === schedule,
  reason: `searchSchedule '${schedule}'`,
})
const simulated: Need = {
  isMet: ({ searchProvider }) => searchProvider?.startsWith('policy:') ?? false,
  reason: "searchProvider 'policy:MODEL'; a provider that the program passes has its own",
}
const searchNeeds: Partial<Record<SettingName, Need>> = {
  searchProvider: isSearched,
  realSearches: scheduled('first'),
  realShareStart: scheduled('curriculum'),
  realShareEnd: scheduled('curriculum'),
  maxSearches: isSearched,
  searchTopK: isSearched,
  maxDocumentTokens: isSearched,
  documentLayout: isSearched,
  searchFailure: isSearched,
  searchTimeout: isSearched,
  searchAttempts: isSearched,
  searchConcurrency: isSearched,
  searchCache: isSearched,
  searchCacheMode: { isMet: ({ searchCache }) => searchCache !== null, reason: 'searchCache' },
  noiseStart: simulated,
  noiseEnd: simulated,
  leakAnswer: simulated,
}

/** Settings that have an effect only beside others. */
const needs: Partial<Record<SettingName, Need>> = {
  packedLength: { isMet: ({ packing }) => packing, reason: 'packing: true' },
  scaleRewards: {
    isMet: ({ estimator }) => estimator === 'grpo',
    reason: "estimator 'grpo': the others have a scale of their own, or none",
  },
  ...searchNeeds,
  ...clippingNeeds(['epsilon', 'epsilonHigh', 'dualClip']),
  ...alarmNeeds([
    'alarmWindow',
    'alarmFall',
    'alarmEntropyMin',
    'alarmEntropyMax',
    'alarmZeroVariance',
    'alarmRepetition',
    'alarmLengthGrowth',
  ]),
  ...criticNeeds(['critic', 'gamma', 'gaeLambda', 'criticLearningRate', 'criticWarmupSteps', 'valueClip']),
  valueCoefficient: {
    isMet: ({ estimator, critic }) => estimator === 'gae' && critic === 'shared',
    reason: "estimator 'gae' and critic 'shared': a critic of its own has a loss of its own",
  },
  klCovCoefficient: { isMet: ({ klCovRatio }) => klCovRatio !== null, reason: 'klCovRatio' },
  maxGenerationBatches: { isMet: ({ dynamicSampling }) => dynamicSampling, reason: 'dynamicSampling: true' },
  klEstimator: { isMet: ({ beta }) => beta > 0, reason: 'beta above 0: there is no KL without' },
  klPlacement: { isMet: ({ beta }) => beta > 0, reason: 'beta above 0: there is no KL without' },
}

function clippingNeeds(names: readonly SettingName[]): Partial<Record<SettingName, Need>> {
  const need = {
    isMet: ({ klCovRatio }: Config) => klCovRatio === null,
    reason: 'klCovRatio null: KL-Cov takes the place of clipping',
  }
  return Object.fromEntries(names.map((name) => [name, need]))
}

function alarmNeeds(names: readonly SettingName[]): Partial<Record<SettingName, Need>> {
  const need = { isMet: ({ alarms }: Config) => alarms !== 'off', reason: "alarms 'warn' or 'stop'" }
  return Object.fromEntries(names.map((name) => [name, need]))
}

function criticNeeds(names: readonly SettingName[]): Partial<Record<SettingName, Need>> {
  const need = {
    isMet: ({ estimator }: Config) => estimator === 'gae',
    reason: "estimator 'gae': the others have no critic",
  }
  return Object.fromEntries(names.map((name) => [name, need]))
}

/** False for a setting that the others make meaningless. */
export function hasEffect(name: SettingName, config: Config): boolean {
  return needs[name]?.isMet(config) ?? true
}

export function refuse(message: string): never {
  throw new SsrlError('ERR_INVALID_CONFIG', message)
}

/**
 * @param given the settings that were asked for, the defaults aside
 * @throws SsrlError `ERR_INVALID_CONFIG` for combinations that would silently do something else than what they say
 */
export function requireSense(config: Config, given: { [K in SettingName]?: unknown }): void {
  for (const [name, need] of Object.entries(needs) as [SettingName, Need][]) {
    if (given[name] !== undefined && !need.isMet(config)) refuse(`${name} needs ${need.reason}`)
  }
  requireWholeSampling(config)
  requireSchedule(config)
  requireEstimator(config)
  requireReward(config)
  requireCritic(config)
  requireAlarms(config)
  requireClipping(config)
  requireRatio(config)
  if (config.evaluationTemperature === 0 && config.evaluationSamples > 1) {
    refuse(
      'Expected evaluationTemperature above 0 with evaluationSamples above 1: greedy samples are all the same',
    )
  }
  if (config.packing && config.maxLength !== null && config.maxLength > config.packedLength) {
    refuse(
      `Expected maxLength of at most packedLength (${config.packedLength}), or no example of that length fits a row, ` +
        `but received ${config.maxLength}`,
    )
  }
}

function requireWholeSampling(config: Config): void {
  if (config.topP === 1 && config.topK === 0 && config.minP === 0) return
  const name = config.topP !== 1 ? 'topP' : config.topK !== 0 ? 'topK' : 'minP'
  const off = name === 'topP' ? 1 : 0
  refuse(
    `Expected ${name} to be ${off} in training but received ${config[name]}: truncated sampling draws from another ` +
      'distribution than the one that is trained. Use it in generate or eval',
  )
}

function requireSchedule(config: Config): void {
  if (config.warmupSteps > 0 && config.warmupRatio > 0) {
    refuse(
      `Expected warmupSteps or warmupRatio but received both (${config.warmupSteps}, ${config.warmupRatio})`,
    )
  }
  if (config.warmupSteps > config.maxSteps) {
    refuse(`Expected warmupSteps of at most maxSteps (${config.maxSteps}) but received ${config.warmupSteps}`)
  }
  if (config.schedule === 'constant' && (config.scheduleFloor > 0 || config.scheduleHold > 0)) {
    refuse('scheduleFloor and scheduleHold need schedule "linear" or "cosine"; "constant" does not fall')
  }
}

function requireEstimator({ estimator, numGenerations, numMiniBatches, promptsPerStep }: Config): void {
  if (numGenerations < 2 && withGroups.includes(estimator)) {
    refuse(
      `Expected numGenerations of at least 2 with estimator "${estimator}", which compares trajectories of one ` +
        `question, but received ${numGenerations}`,
    )
  }
  if (numMiniBatches > promptsPerStep) {
    refuse(
      `Expected numMiniBatches of at most promptsPerStep (${promptsPerStep}), as each has whole questions, but ` +
        `received ${numMiniBatches}`,
    )
  }
}

function requireCritic({ estimator, criticWarmupSteps, maxSteps }: Config): void {
  if (estimator !== 'gae' || criticWarmupSteps < maxSteps) return
  refuse(
    `Expected criticWarmupSteps below maxSteps (${maxSteps}), or the policy never learns, but received ${criticWarmupSteps}`,
  )
}

function requireAlarms({ alarmEntropyMin, alarmEntropyMax }: Config): void {
  if (alarmEntropyMin === null || alarmEntropyMax === null || alarmEntropyMin < alarmEntropyMax) return
  refuse(
    `Expected alarmEntropyMin below alarmEntropyMax (${alarmEntropyMax}) but received ${alarmEntropyMin}`,
  )
}

function requireReward(config: Config): void {
  const { dynamicSampling, numGenerations, overlongBuffer, maxCompletionLength } = config
  if (dynamicSampling && numGenerations < 2) {
    refuse('dynamicSampling needs numGenerations of at least 2: the rewards of one trajectory are all equal')
  }
  if (config.answerReward === 'majorityVote' && numGenerations < 2) {
    refuse("answerReward 'majorityVote' needs numGenerations of at least 2: one answer is its own majority")
  }
  if (overlongBuffer !== null && overlongBuffer > maxCompletionLength) {
    refuse(
      `Expected overlongBuffer of at most maxCompletionLength (${maxCompletionLength}) but received ${overlongBuffer}`,
    )
  }
  if (config.beta > 0 && config.klEstimator === 'k1' && config.klPlacement === 'loss') {
    refuse(
      "klEstimator 'k1' needs klPlacement 'reward': in the loss its gradient is 0 on average, so that it holds nothing " +
        "near the reference; 'k2' and 'k3' do",
    )
  }
}

function requireRatio(config: Config): void {
  const { klCovRatio, importanceSamplingLevel, estimator, klPlacement, beta } = config
  if (klCovRatio !== null && config.numIterations === 1 && config.numMiniBatches === 1) {
    refuse(
      'klCovRatio needs numIterations or numMiniBatches above 1: with one optimizer step per batch no token has moved',
    )
  }
  if (importanceSamplingLevel === 'token') return
  if (klCovRatio !== null) refuse("klCovRatio needs importanceSamplingLevel 'token': it chooses tokens")
  const byToken = estimator === 'reinforce_plus_plus' && klPlacement === 'reward' && beta > 0
  if (byToken || estimator === 'gae') {
    refuse(
      "importanceSamplingLevel 'sequence' needs one advantage per trajectory, but " +
        `${estimator}${byToken ? " with klPlacement 'reward'" : ''} gives each token its own`,
    )
  }
}

function requireClipping({ dualClip, epsilonHigh, epsilon, klCovRatio }: Config): void {
  if (klCovRatio !== null) return
  const high = epsilonHigh ?? epsilon
  if (dualClip !== null && dualClip <= 1 + high) {
    refuse(
      `Expected dualClip above 1 + epsilonHigh (${1 + high}), or it clips what is inside the range, but received ${dualClip}`,
    )
  }
}
