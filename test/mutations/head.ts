/** The head: log-softmax, loss and its gradient, sampling. */
import { type Check, mutantsOf } from './mutant.ts'

const loss = (...titles: string[]): Check => ({
  file: 'policy-loss',
  titles: titles.map((title) => `emulated CUDA: ${title}`),
})
const small = loss('policyLoss f32*3, 31, 47*', 'policyLoss f32*47, 123, 31*')
const every = loss('*')
const drawn: Check = { file: 'sampling', titles: ['emulated CUDA: sample: *'] }
const settings: Check = {
  file: 'sampling',
  titles: [
    'emulated CUDA: sample: temperature 0*',
    'emulated CUDA: sample: ties*',
    'emulated CUDA: sample: log-probs and*',
  ],
}
const likeCpu: Check = { file: 'sampling', titles: ['emulated CUDA: sample: equal logits*'] }

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
    ],
  },
)

const block = mutantsOf(
  { file: 'cuda/block.h', sources: ['cuda/loss.cu', 'cuda/sampling.cu'], checks: [small, settings, drawn] },
  {
    'block: no barrier before the sums of warps are read': [
      'sums of other warps are not there yet',
      'slots.store(warp_index(), value);\n  sync_threads();',
      'slots.store(warp_index(), value);',
    ],
    'block: no barrier after the sums of warps were read': [
      'the next sum overwrites them',
      'sum += slots.load(warp);\n  sync_threads();',
      'sum += slots.load(warp);',
    ],
    'block: no barrier before the maxima of warps are read': [
      'maxima of other warps are not there yet',
      'memory.scores.store(warp_index(), value);\n  sync_threads();',
      'memory.scores.store(warp_index(), value);',
    ],
    'block: no barrier after the maxima of warps were read': [
      'the next maximum overwrites them',
      'maximum = other > maximum ? other : maximum;\n  }\n  sync_threads();',
      'maximum = other > maximum ? other : maximum;\n  }',
    ],
    'block: no barrier before the best of warps are read': [
      'the best of other warps are not there yet',
      'memory.indices.store(warp_index(), best.index);\n  }\n  sync_threads();',
      'memory.indices.store(warp_index(), best.index);\n  }',
      [settings],
    ],
    'block: the best of the first warp': [
      'tokens of other warps are never drawn',
      'const Best other{memory.scores.load(warp), memory.indices.load(warp)};\n    if (is_better(other, best)) best = other;',
      '',
      [drawn],
    ],
    'block: ties go to the highest index': [
      'greedy tokens differ from the CPU',
      'a.score == b.score && a.index < b.index',
      'a.score == b.score && a.index > b.index',
      [settings],
    ],
    'softmax: the maximum is not subtracted': [
      'large logits overflow',
      'logits[i] * inverse_temperature - maximum;\n    const',
      'logits[i] * inverse_temperature;\n    const',
    ],
    'softmax: logits of minus infinity are not cut off': [
      'the entropy becomes NaN',
      'distance < -200.0f ? -200.0f : distance',
      'distance',
      [drawn],
    ],
    'softmax: the entropy without its mean': [
      'entropies are off',
      'log_sum - weighted / total',
      'log_sum - weighted',
    ],
    'softmax: a thread begins one late': [
      'the first logit has no mass',
      'double total = 0, weighted = 0;\n  for (int64_t i = thread_index();',
      'double total = 0, weighted = 0;\n  for (int64_t i = thread_index() + 1;',
    ],
  },
)

const draws = mutantsOf(
  { file: 'cuda/sampling.cu', checks: [settings, likeCpu, drawn] },
  {
    'sampling: the counter skips blocks': [
      'noise of index i is that of another',
      'static_cast<uint32_t>(begin / 4)',
      'static_cast<uint32_t>(begin)',
      [likeCpu],
    ],
    'sampling: position and sample change places': [
      'noise of a position is that of another',
      'ops::philox(settings.seed, settings.sample, settings.position,',
      'ops::philox(settings.seed, settings.position, settings.sample,',
      [likeCpu],
    ],
    'sampling: one word of noise for four indices': [
      'neighbours have the same noise',
      'ops::gumbel(words.word[k])',
      'ops::gumbel(words.word[0])',
      [likeCpu],
    ],
    'sampling: greedy takes the last of equals': [
      'ties go to the highest index of a thread',
      'row.logits[i] > best.score',
      'row.logits[i] >= best.score',
    ],
    'sampling: the order of negative logits is turned round': [
      'truncation keeps the worst of them',
      '(bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u',
      'bits | 0x80000000u',
    ],
    'sampling: -0 comes after 0': [
      'ties of zeros keep the wrong index',
      'row.logits[i] == 0.0f ? 0.0f : row.logits[i]',
      'row.logits[i]',
    ],
    'sampling: the last kept token is dropped': [
      'truncation keeps one too few',
      'key_of(row, i) <= kept.last &&',
      'key_of(row, i) < kept.last &&',
    ],
    'sampling: min-p drops what is equal to it': [
      'a min-p of 1 keeps nothing',
      'mass(row, i) >= kept.least',
      'mass(row, i) > kept.least',
    ],
    'sampling: a small min-p keeps what has no mass': [
      'the sampled log-prob counts the impossible',
      'least < 1 ? 1 : least',
      'least',
    ],
    'sampling: a bin that just reaches is passed over': [
      'truncation keeps one too many',
      'static_cast<double>(reached) >= wanted',
      'static_cast<double>(reached) > wanted',
    ],
    'sampling: the sum before a bin counts the bin': [
      'the descent looks for too little',
      'chosen_before = reached;\n    reached += here;',
      'reached += here;\n    chosen_before = reached;',
    ],
    'sampling: bins are not cleared': [
      'counts of the digit before remain',
      'memory.bins.store(bin, 0);',
      'if (shift == 56) memory.bins.store(bin, 0);',
    ],
    'sampling: no barrier after the bins are cleared': [
      'counts are cleared by others',
      'memory.bins.store(bin, 0);\n    sync_threads();',
      'memory.bins.store(bin, 0);',
    ],
    'sampling: no barrier after the bins are counted': [
      'a bin is chosen from counts in the making',
      '    sync_threads();\n    if (thread_index() == 0) choose_bin',
      '    if (thread_index() == 0) choose_bin',
    ],
    'sampling: no barrier after a bin is chosen': [
      'threads go on with the digit before',
      'choose_bin(memory, before, wanted);\n    sync_threads();',
      'choose_bin(memory, before, wanted);',
    ],
    'sampling: no barrier before the next digit': [
      'the bins are cleared while one thread walks them',
      'before = memory.chosen.load(1);\n    sync_threads();',
      'before = memory.chosen.load(1);',
    ],
    'sampling: top-p of all tokens, not of the top k': [
      'the nucleus is that of the whole vocabulary',
      'if (key_of(row, i) <= limit) sum += amount(i);',
      'sum += amount(i);',
    ],
    'sampling: the sum of the kept counts all': [
      'the sampled log-prob is that of the full softmax',
      'if (keeps(row, kept, i)) sum +=',
      'sum +=',
    ],
    'sampling: no temperature': [
      'every draw is at temperature 1',
      'settings.temperature > 0 ? 1.0f / settings.temperature : 1.0f',
      '1.0f',
    ],
    'sampling: every row has the settings of the first': [
      'rows of a batch are drawn alike',
      'a.settings[block_x()]',
      'a.settings[0]',
      [drawn],
    ],
    'sampling: the vocabulary ends at whole fours': [
      'the last tokens are never drawn',
      'k < 4 && begin + k < row.vocabulary; ++k',
      'k < 4 && begin + 4 <= row.vocabulary; ++k',
    ],
  },
)

const noise = mutantsOf(
  { file: 'sampling_math.h', sources: ['cuda/sampling.cu'], checks: [likeCpu, drawn] },
  {
    'noise: nine rounds': ['the noise is another', 'round < 10', 'round < 9'],
    'noise: half of the seed': [
      'seeds that differ in their upper half draw alike',
      'k1 = static_cast<uint32_t>(seed >> 32)',
      'k1 = 0',
    ],
    'noise: keys are not raised': ['rounds are alike', 'k1 += 0xBB67AE85u;', ''],
    'noise: the logarithm loses its small part': [
      'draws are off in the last bits',
      'e * -2.12194440e-4f);\n}',
      'e * 0.0f);\n}',
    ],
    'noise: mass in coarse units': [
      'truncation is off at its edge',
      'sampling_exp(scaled - maximum) * 4294967296.0f',
      'sampling_exp(scaled - maximum) * 256.0f',
    ],
  },
)

export const head = [...rows, ...math, ...chunks, ...block, ...draws, ...noise]
