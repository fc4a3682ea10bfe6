/**
 * Generalised advantage estimation (Schulman et al. 2016, arXiv 1506.02438, eq. 16) for PPO (arXiv 1707.06347) with a
 * learned critic: δ_t = r_t + γ V_{t+1} - V_t, A_t = δ_t + γλ A_{t+1}, over the tokens that are learnt from only: the one
 * after a masked block comes next. The trajectory's reward is that of its last token, behind which the value is 0.
 * The critic learns A_t + V_t; advantages are whitened over all tokens of the step.
 */
import type { Estimator, EstimatorSettings, Scored } from './estimator.ts'
import { whitened } from './whiten.ts'

export const gae: Estimator = (scored, settings) => {
  const walked = scored.map((one) => (one.reward === null ? null : walkBack(one, settings)))
  return {
    advantages: whitened(
      walked.map((one) => one?.advantages ?? null),
      scored.map(({ mask }) => mask),
      settings.advantageEpsilon,
    ),
    returns: walked.map((one) => one?.returns ?? null),
  }
}

function walkBack(
  { reward, mask, values, tokenRewards }: Scored,
  { gamma, gaeLambda }: EstimatorSettings,
): { advantages: Float32Array; returns: Float32Array } {
  const advantages = new Float32Array(mask.length)
  const returns = new Float32Array(mask.length)
  let nextValue = 0
  let nextAdvantage = 0
  let pending = reward!
  for (let t = mask.length - 1; t >= 0; t--) {
    if (mask[t] === 0) continue
    const delta = pending + (tokenRewards?.[t] ?? 0) + gamma * nextValue - values![t]!
    nextAdvantage = delta + gamma * gaeLambda * nextAdvantage
    nextValue = values![t]!
    pending = 0
    advantages[t] = nextAdvantage
    returns[t] = nextAdvantage + nextValue
  }
  return { advantages, returns }
}
