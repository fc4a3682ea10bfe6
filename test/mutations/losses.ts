/** The fused head: losses, their gradients, and chunks of rows. */
import { type Check, mutantsOf } from './mutant.ts'

const loss = (...titles: string[]): Check => ({
  file: 'policy-loss',
  titles: titles.map((title) => `emulated CUDA: ${title}`),
})
const small = loss('policyLoss f32*3, 31, 47*', 'policyLoss f32*47, 123, 31*')
const every = loss('*')

const rows = mutantsOf(
  { file: 'cuda/loss.cu', checks: [small, every] },
  {
    'loss: log-probs without the temperature': [
      'scores are those of temperature 1',
      'const float inverse = 1.0f / a.temperature;',
      'const float inverse = 1.0f;',
      [loss('*bit*', '*logProbs*')],
    ],
    'loss: no barrier before the gradient replaces the logits': [
      'a thread reads the logit of the target after it was replaced',
      'sync_threads();\n  const float factor',
      'const float factor',
    ],
    'loss: the gradient of the target has the wrong sign': [
      'the target is pushed down',
      'factor * (1.0f - probability)',
      '-factor * (1.0f - probability)',
    ],
    'loss: the gradient of the target is that of the others': [
      'the target has no gradient of its own',
      'j == target ? factor * (1.0f - probability) : -factor * probability',
      '-factor * probability',
    ],
    'loss: the gradient lacks the temperature': [
      'gradients are off by the temperature',
      'loss.derivative * inverse',
      'loss.derivative',
    ],
    'loss: log-probs go to the rows in order': [
      'masked rows have the log-probs of others',
      'a.loss.logprobs[row] = logprob;',
      'a.loss.logprobs[i] = logprob;',
    ],
    'loss: weights of rows that have none': [
      'statistics take the weights of others',
      'softmax.entropy, a.loss.weights[i]}',
      'softmax.entropy, a.loss.weights[i > 0 ? i - 1 : 0]}',
    ],
    'loss: every thread writes the statistics of its row and ends': [
      'most of the gradient is missing',
      'if (a.dlogits == nullptr) return;',
      'if (a.dlogits == nullptr || thread_index() > 0) return;',
    ],
    'loss: gradients of hidden states go to the rows in order': [
      'masked rows have the gradients of others',
      'store_eight(to + rows[i] * width,',
      'store_eight(to + i * width,',
    ],
  },
)

const math = mutantsOf(
  { file: 'policy_loss_math.h', sources: ['cuda/loss.cu', 'cuda/head.cc'], checks: [small, every] },
  {
    'loss: k3 has the wrong sign': [
      'the policy is pushed away from the reference',
      'return {rise - difference, -rise};',
      'return {rise - difference, rise};',
    ],
    'loss: k3 loses its linear part': ['the KL is biased', '{rise - difference, -rise}', '{rise, -rise}'],
    'loss: k2 without the half': [
      'the KL is doubled',
      '0.5f * difference * difference',
      'difference * difference',
    ],
    'loss: k1 has the wrong sign': ['the KL is negated', '{-difference, 1.0f}', '{difference, 1.0f}'],
    'loss: dual clip for good tokens too': [
      'the bound acts where it must not',
      'o.dual_clip > 0 && advantage < 0 && loss.policy',
      'o.dual_clip > 0 && loss.policy',
    ],
    'loss: dual clip keeps the gradient': [
      'a bounded loss has a gradient',
      'loss.policy = -advantage * o.dual_clip;\n    derivative = 0;',
      'loss.policy = -advantage * o.dual_clip;',
    ],
    'loss: both clips alike': [
      'clip-higher is lost',
      'high = 1.0f + o.epsilon_high',
      'high = 1.0f + o.epsilon',
    ],
    'loss: the minimum in place of the maximum': [
      'the loss is optimistic where it must be pessimistic',
      'free < bound ? bound : free',
      'free < bound ? free : bound',
    ],
    'loss: no gradient at a ratio of 1': [
      'the first step of a batch trains nothing',
      'free >= bound ? free : 0.0f',
      'free > bound ? free : 0.0f',
    ],
    'loss: clipped tokens keep their gradient': [
      'the clip does not hold',
      'free >= bound ? free : 0.0f',
      'free',
    ],
    'loss: good tokens count as clipped from below': [
      'the statistics of clips are wrong',
      'loss.clip_low = advantage < 0 && r < low;',
      'loss.clip_low = r < low;',
    ],
    'loss: drift pulls the wrong way': [
      'tokens are driven from where they were',
      'log_ratio > 0 ? 1.0f : log_ratio < 0 ? -1.0f : 0.0f',
      'log_ratio > 0 ? -1.0f : log_ratio < 0 ? 1.0f : 0.0f',
    ],
    "loss: a given ratio is taken for the token's own": [
      "a sequence's ratio is not used",
      'loss.ratio = expf(a.log_ratios[row]);',
      'loss.ratio = expf(logprob - a.old_logprobs[row]);',
    ],
    'loss: supervised gradients without weights': [
      'masked tokens are trained',
      'loss.derivative = -a.weights[row];',
      'loss.derivative = -1.0f;',
    ],
    'loss: gradients without weights': [
      'normalisers have no effect',
      'loss.derivative = a.weights[row] * derivative;',
      'loss.derivative = derivative;',
    ],
  },
)

const chunks = mutantsOf(
  { file: 'cuda/head.cc', checks: [loss('*chunks*'), small] },
  {
    'head: every chunk scores the first hidden states': [
      'rows from 1,024 on have the log-probs of others',
      'static_cast<const char*>(a.hidden) + begin * inputs * element',
      'static_cast<const char*>(a.hidden)',
    ],
    'head: every chunk scores the first targets': [
      'rows from 1,024 on have the targets of others',
      'a.weight->outputs(), targets + begin, a.temperature',
      'a.weight->outputs(), targets, a.temperature',
    ],
    'head: every chunk trains the first rows': [
      'rows from 1,024 on are not trained',
      'const int64_t* const rows = active_.rows.data() + begin;',
      'const int64_t* const rows = active_.rows.data();',
    ],
    'head: rows are staged from the first chunk': [
      'a chunk has the advantages of the first',
      'context.stage(values.data() + begin, count, out)',
      'context.stage(values.data(), count, out)',
    ],
    'head: masked rows keep what was there': [
      'rows without a weight have garbage',
      'if (count < a_.rows) SSRL_RETURN_IF_ERROR(clear());',
      '',
      [{ file: 'cuda-learner', titles: ['emulated CUDA: llama*a whole step*'] }],
    ],
  },
)

export const losses = [...rows, ...math, ...chunks]
