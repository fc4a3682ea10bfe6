import { compose, defaultReward } from './compose.ts'
import { overlongPenalty } from './overlong.ts'
import { coverExactMatch, exactMatch, f1, format, formatReward, majorityVote } from './rules.ts'

/** The rewards of the package; see each function. */
export const rewards = {
  exactMatch,
  f1,
  coverExactMatch,
  format,
  formatReward,
  majorityVote,
  overlongPenalty,
  compose,
  default: defaultReward,
}

export { coverExactMatchScore, exactMatchScore, f1Score } from './answers.ts'
export {
  type ComposedReward,
  compose,
  type DefaultRewardOptions,
  defaultReward,
  type RewardBreakdown,
  type RewardPart,
} from './compose.ts'
export { majorityAnswer } from './majority.ts'
export { normalizeAnswer } from './normalize.ts'
export {
  DEFAULT_REWARD_TIMEOUT,
  type RewardContext,
  type RewardFunction,
  type RunRewardOptions,
  runReward,
} from './reward.ts'
export { coverExactMatch, exactMatch, f1, format, formatReward, majorityVote } from './rules.ts'
