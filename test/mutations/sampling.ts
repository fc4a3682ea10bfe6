/** Sampling, and the sums over a block that it shares with the losses. */
import { type Check, mutantsOf } from './mutant.ts'

const small: Check = {
  file: 'policy-loss',
  titles: ['emulated CUDA: policyLoss f32*3, 31, 47*', 'emulated CUDA: policyLoss f32*47, 123, 31*'],
}
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

export const sampling = [...block, ...draws, ...noise]
