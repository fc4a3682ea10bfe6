/** Row-wise kernels: norm, rope, swiglu, embedding, copies. */
import { type Check, mutantsOf } from './mutant.ts'

const rowWise = (...titles: string[]): Check => ({
  file: 'row-wise',
  titles: titles.map((title) => `emulated CUDA: ${title}`),
})
const norm = rowWise('rmsNorm*')
const learner = { file: 'cuda-learner', titles: ['emulated CUDA: llama*transformers*'] }
const twice = { file: 'cuda-learner', titles: ['emulated CUDA: qwen2: gradients of two passes*'] }
const policy = { file: 'cuda-policy', titles: ['emulated CUDA: llama*transformers'] }
const moves = { file: 'cuda-emulation', titles: ['rows are gathered*'] }

const norms = mutantsOf(
  { file: 'cuda/norm.cu', checks: [norm] },
  {
    'norm: no bound on rows': ['warps without a row write', 'if (row >= a.tokens * a.groups) return;\n', ''],
    'norm: every group reads the first': [
      'heads share the norm of one',
      'token * a.x_stride + group * width',
      'token * a.x_stride',
    ],
    'norm: no epsilon': ['a row of zeros becomes NaN', 'square_root(mean + a.epsilon)', 'square_root(mean)'],
    'norm: lanes are not added up': [
      'each lane has a norm of its own',
      'warp_sum(sum) / static_cast<double>(width));\n  const float inverse',
      'sum / static_cast<double>(width));\n  const float inverse',
    ],
    'norm backward: the mean has the wrong sign': [
      'the gradient does not stay at right angles to the row',
      'fmaf(-normed, mean,',
      'fmaf(normed, mean,',
    ],
    'norm backward: lanes are not added up': [
      'each lane subtracts a mean of its own',
      'warp_sum(sum) / static_cast<double>(width));\n  for',
      'sum / static_cast<double>(width));\n  for',
    ],
    'norm backward: the residual gradient is overwritten': [
      'the gradient past the norm is lost',
      'if (a.accumulate) out = load_eight(dx, j, width);',
      '',
      [learner],
    ],
    'norm backward: parts begin a row late': [
      'the first row of each part has no gradient',
      'int64_t row = count * part / parts; row',
      'int64_t row = count * part / parts + 1; row',
    ],
    'norm backward: parts are not cleared': [
      'sums begin with what was in the scratch',
      'store_eight(dweight, j, a.width, Eight{});',
      ';',
    ],
  },
)

const columns = mutantsOf(
  { file: 'cuda/column_sums.cu', checks: [norm] },
  {
    'column sums: replace what is there': [
      'gradients of norms and biases forget earlier batches',
      'out[column] += sum;',
      'out[column] = sum;',
      [twice],
    ],
    'column sums: the first row is left out': [
      'gradients of norms and biases lack a row',
      'int64_t row = warp_index(); row < rows',
      'int64_t row = warp_index() + 1; row < rows',
    ],
    'column sums: no barrier before the sums of warps are read': [
      'sums of other warps are not there yet',
      'memory.sums.store(thread_index(), sum);\n  sync_threads();',
      'memory.sums.store(thread_index(), sum);',
    ],
    'column sums: the last warp is left out': [
      'every so many rows are missing',
      'warp < warps; ++warp) sum',
      'warp + 1 < warps; ++warp) sum',
    ],
  },
)

const ropes = mutantsOf(
  { file: 'cuda/rope.cu', checks: [rowWise('rope*')] },
  {
    'rope: backward turns forward': [
      'the gradient is turned the wrong way',
      'a.backward ? -sine.value[i] : sine.value[i]',
      'sine.value[i]',
    ],
    'rope: the second half begins after whole pieces': [
      'pairs are made of wrong elements',
      'T* second = first + half;',
      'T* second = first + pieces * 8;',
    ],
    'rope: positions count from the first row': [
      'rows of a batch take their place for their position',
      'static_cast<int64_t>(a.positions[token]) * half',
      'token * half',
    ],
    'rope: heads of every row but the first are skipped': [
      'items go to wrong tokens',
      'item / (pieces * a.heads)',
      'item / (pieces * a.heads * a.heads)',
    ],
    'rope: rows without their stride': [
      'the fused q/k/v rows are turned in wrong places',
      'token * a.stride + head',
      'token * a.heads * a.head_dim + head',
      [policy],
    ],
    'rope: the sine has the wrong sign in one half': [
      'pairs are reflected',
      'fmaf(-y, turn,',
      'fmaf(y, turn,',
    ],
  },
)

const swiglus = mutantsOf(
  { file: 'cuda/swiglu.cu', checks: [rowWise('swiglu*')] },
  {
    'swiglu: up is read from gate': [
      'the second half of a row is not used',
      'up = load_eight(row + a.width, j, a.width);\n    Eight y;',
      'up = load_eight(row, j, a.width);\n    Eight y;',
    ],
    'swiglu: the last piece of a row is left out': [
      'the end of a row stays unset',
      'pieces = pieces_of(a.width, 8);\n  for (int64_t item = grid_index(); item < items; item += grid_stride()) {\n    const int64_t token = item / pieces, j = item % pieces * 8;\n    const T* row = static_cast<const T*>(a.gate_up) + token * 2 * a.width;\n    const Eight gate = load_eight(row, j, a.width), up = load_eight(row + a.width, j, a.width);\n    Eight y;',
      'pieces = a.width < 8 ? 1 : a.width / 8;\n  for (int64_t item = grid_index(); item < items; item += grid_stride()) {\n    const int64_t token = item / pieces, j = item % pieces * 8;\n    const T* row = static_cast<const T*>(a.gate_up) + token * 2 * a.width;\n    const Eight gate = load_eight(row, j, a.width), up = load_eight(row + a.width, j, a.width);\n    Eight y;',
    ],
    'swiglu: the sigmoid of very negative gates is not cut off': [
      'exp overflows',
      'x < -88.0f ? 0.0f : 1.0f',
      '1.0f',
    ],
    'swiglu backward: the derivative of the sigmoid lacks a factor': [
      'the gradient of the gate is wrong',
      'fmaf(gate.value[i], 1.0f - s, 1.0f)',
      'fmaf(gate.value[i], s, 1.0f)',
    ],
    'swiglu backward: the gradient of up lacks the gate': [
      'the gradient of up is wrong',
      'dy.value[i] * (gate.value[i] * s)',
      'dy.value[i] * s',
    ],
    'swiglu backward: the activation is taken again without its sigmoid': [
      'the gradient of the next weights is wrong',
      'activation(gate.value[i], s, up.value[i])',
      'activation(gate.value[i], 1.0f, up.value[i])',
    ],
    'swiglu backward: gradients change places': [
      'the gradient of gate is stored as that of up',
      'store_eight(out + a.width, j, a.width, dup);',
      'store_eight(out + a.width, j, a.width, dgate);',
    ],
  },
)

const embeddings = mutantsOf(
  { file: 'cuda/embedding.cu', checks: [rowWise('embedding*')] },
  {
    'embedding: rows by token, not by id': [
      'the table is read in order',
      'a.ids[token] * a.width',
      'token * a.width',
    ],
    'embedding: not rounded to the compute type': [
      'bf16 models see f32 embeddings',
      'to_float(from_float<Rounded>(values.value[i]))',
      'values.value[i]',
    ],
    'embedding backward: every token of an id adds its segment': [
      'gradients of an id count as often as it comes',
      'if (!is_first(a.ids, first, id)) return;\n',
      '',
    ],
    'embedding backward: a token is before itself': [
      'no id has a first token',
      'ballot(token < end && ids[token] == id)',
      'ballot(token <= end && ids[token] == id)',
    ],
    'embedding backward: ids past the end count': [
      'what follows the ids is taken for them',
      'ballot(token < a.tokens && a.ids[token] == id)',
      'ballot(a.ids[token < a.tokens ? token : 0] == id)',
    ],
    'embedding backward: the lowest lane is never cleared': [
      'a warp never ends',
      'same &= same - 1',
      'same &= same',
    ],
    'embedding backward: the segment begins at 0': [
      'the gradient of the tied head is lost',
      'if (j < a.width) sum = load_eight(to, j, a.width);',
      '',
      [learner],
    ],
    'embedding backward: all blocks take the first columns': [
      'columns from 256 on have no gradient',
      'static_cast<int64_t>(block_y()) * kColumns + lane_index() * 8',
      'static_cast<int64_t>(lane_index()) * 8',
    ],
  },
)

const copies = mutantsOf(
  { file: 'cuda/embedding.cu', checks: [moves] },
  {
    'copies: rows in order, not by index': [
      'gathered rows are the first ones',
      'a.indices == nullptr ? row : a.indices[row]',
      'row',
    ],
    'copies: pages in order, not where they belong': [
      'keys and values are put into wrong pages',
      'a.offsets == nullptr ? row * a.bytes : a.offsets[row]',
      'row * a.bytes',
    ],
    'copies: alignment of the target is not looked at': [
      'stores of 16 bytes at any address',
      'aligned16(from) && aligned16(to)',
      'aligned16(from)',
    ],
    'copies: no bound on the last piece': [
      'the row after is overwritten',
      'i < 16 && at + i < a.bytes; i += 2',
      'i < 16; i += 2',
    ],
  },
)

const everyRow = mutantsOf(
  {
    file: 'cuda/device.h',
    sources: [
      'norm',
      'rope',
      'swiglu',
      'embedding',
      'optimizer',
      'loss',
      'sampling',
      'attention_backward',
    ].map((name) => `cuda/${name}.cu`),
    checks: [norm, rowWise('swiglu*')],
  },
  {
    'rows: no bound on loads': [
      'what follows a row is taken for its end',
      'begin + i < width ? to_float(from[i]) : 0.0f',
      'to_float(from[i])',
    ],
    'rows: no bound on stores': ['the row after is overwritten', 'if (begin + i < width) to[i] =', 'to[i] ='],
    'rows: alignment of loads is not looked at': [
      'loads of 16 bytes at any address',
      'begin + 8 <= width && aligned16(from)',
      'begin + 8 <= width',
    ],
    'rows: halves of a piece are exchanged': [
      'neighbouring bf16 change places',
      'words.word[i / 2] >> (16 * (i % 2))',
      'words.word[i / 2] >> (16 * (1 - i % 2))',
    ],
    'rows: a warp adds up half of its lanes': [
      'neighbours keep sums of their own',
      'flip > 0; flip /= 2) value +=',
      'flip > 1; flip /= 2) value +=',
    ],
  },
)

export const rows = [...norms, ...columns, ...ropes, ...swiglus, ...embeddings, ...copies, ...everyRow]
