/** The gradient of attention: dot · out, dQ by tiles of queries, dK and dV by tiles of keys, and the plan. */
import { type Check, mutantsOf } from './mutant.ts'

const of = (...titles: string[]): Check => ({
  file: 'attention',
  titles: titles.map((title) => `emulated CUDA: ${title}`),
})
const wide = of('attentionBackward f32*')
const narrow = of('attentionBackward bf16*')
const shared = of('attentionBackward: *')

const kernels = mutantsOf(
  { file: 'cuda/attention_backward.cu', checks: [narrow, wide, shared] },
  {
    'attention backward: rows of dout · out without their head': [
      'every head has the sum of the first',
      'row * a.shape.out_stride + head * a.shape.head_dim',
      'row * a.shape.out_stride',
    ],
    'attention backward: lanes of dout · out are not added up': [
      'a part of the head counts',
      'sum = warp_sum(sum);',
      '',
    ],
    'dQ: no wait for the first keys': [
      'the first products read what has not arrived',
      'work.fetch_keys(0);\n  wait<0>();',
      'work.fetch_keys(0);',
    ],
    'dQ: no barrier after the first keys': [
      'warps read what others are still copying',
      'work.fetch_keys(0);\n  wait<0>();\n  sync_threads();',
      'work.fetch_keys(0);\n  wait<0>();',
    ],
    'dQ: no barrier before keys are replaced': [
      'warps that are behind read the next keys',
      '      sync_threads();\n      work.fetch_keys(part + 1);\n    }\n    wait<0>();\n    sync_threads();',
      '      work.fetch_keys(part + 1);\n    }\n    wait<0>();\n    sync_threads();',
    ],
    'dQ: no barrier after the next keys': [
      'keys are used while others copy them',
      'work.fetch_keys(part + 1);\n    }\n    wait<0>();\n    sync_threads();',
      'work.fetch_keys(part + 1);\n    }\n    wait<0>();',
    ],
    'dQ: keys in one buffer': [
      'the next keys are copied over those that are read',
      'return part % C::kStages * C::kKeys;',
      'return part % 1 * C::kKeys;',
    ],
    'dQ: without dout · out': [
      'the softmax is not differentiated',
      '(gradients[n].value[e] - delta[half])',
      'gradients[n].value[e]',
    ],
    'dQ: no mask': [
      'keys after a row have a gradient',
      'scores[n].value[e] = sees ? weight * (gradients[n].value[e] - delta[half]) : 0.0f;',
      'scores[n].value[e] = weight * (gradients[n].value[e] - delta[half]);',
    ],
    'dQ: no scale': [
      'gradients are off by the scale',
      'store_slice<T, C::kSlice>(work.sums, work.slice * C::kSlice, a.shape.scale,',
      'store_slice<T, C::kSlice>(work.sums, work.slice * C::kSlice, 1.0f,',
    ],
    'dQ: all slices are the first': [
      'columns from 128 on of wide heads are wrong',
      'const int step = slice * (Slice / 16) + n;',
      'const int step = n;',
    ],
    'dQ: parts of a page begin with its first key': [
      'wide heads read half of the keys twice',
      'begin % kPage * a.shape.kv_stride',
      'begin % 1 * a.shape.kv_stride',
    ],
    'dK: no wait for the first queries': [
      'the first products read what has not arrived',
      'if (more) work.fetch_pairs(cursor);\n  wait<0>();',
      'if (more) work.fetch_pairs(cursor);',
    ],
    'dK: no barrier after the first queries': [
      'warps read what others are still copying',
      'if (more) work.fetch_pairs(cursor);\n  wait<0>();\n  sync_threads();',
      'if (more) work.fetch_pairs(cursor);\n  wait<0>();',
    ],
    'dK: no barrier before queries are replaced': [
      'warps that are behind read the next queries',
      '      sync_threads();\n      work.fetch_pairs(next);',
      '      work.fetch_pairs(next);',
    ],
    'dK: no barrier after the next queries': [
      'queries are used while others copy them',
      '    wait<0>();\n    sync_threads();\n    cursor = next;',
      '    wait<0>();\n    cursor = next;',
    ],
    'dK: biases of the next queries replace those in use': [
      'log-sum-exp belongs to other queries',
      'memory.bias.store(stage + thread_index(),',
      'memory.bias.store(thread_index(),',
    ],
    'dK: without dout · out': [
      'the softmax is not differentiated',
      'weight * (gradient - memory.delta.load(stage + column))',
      'weight * gradient',
    ],
    'dK: no scale': [
      'gradients are off by the scale',
      'store_slice<T, C::kKeySlice>(work.dk, first, a.shape.scale,',
      'store_slice<T, C::kKeySlice>(work.dk, first, 1.0f,',
    ],
    'dV: scaled as dK is': [
      'gradients are off by the scale',
      'store_slice<T, C::kKeySlice>(work.dv, first, 1.0f,',
      'store_slice<T, C::kKeySlice>(work.dv, first, a.shape.scale,',
    ],
    'dV: weights of dS': [
      'dV is summed with the gradient of the scores',
      'const Weights<T, C::kPairs> p(memory.weights, weights);',
      'const Weights<T, C::kPairs> p(memory.weights, gradients);',
    ],
    'dK: no mask': [
      'queries before a key have a gradient',
      'if (masked && !sees(cursor, column, key)) weight = 0;',
      '',
    ],
    'dK: queries of a step that is partly masked count': [
      'the mask is left out at the diagonal',
      'last_key <= cursor.position + cursor.first / place.group;',
      'true;',
    ],
    'dK: sequences see all keys of the one before': [
      'keys past what is shared have gradients of others',
      'return pair < cursor.pairs && key < cursor.limit && key',
      'return pair < cursor.pairs && key',
    ],
    'dK: keys of the wrong part of a page': [
      'tiles of keys begin with the first of the page',
      'tile.first % kPage * a.shape.kv_stride',
      'tile.first % 1 * a.shape.kv_stride',
    ],
    'dK: queries do not advance': ['the first queries count again and again', 'cursor = next;', ''],
    'dK: the sequences behind are left out': [
      'shared keys have the gradient of their own sequence only',
      '++cursor.segment;\n    return enter(cursor);',
      'return false;',
    ],
    'dK: every run begins with the first queries': [
      'queries count in several runs',
      'cursor.first = tile.first_pair;',
      '',
    ],
    'dK: runs walk to the end': [
      'queries count in several runs',
      'more = step < tile.steps && work.advance(next);',
      'more = work.advance(next);',
    ],
    'dK: the first run alone': [
      'queries of later runs are left out',
      'run < merge.runs; ++run, from += part',
      'run < 1; ++run, from += part',
    ],
    'dK: merged without the scale': [
      'gradients are off by the scale',
      'from_float<T>(dk * a.shape.scale)',
      'from_float<T>(dk)',
    ],
    'dV: runs of dK and dV in one place': [
      'sums of keys and values overwrite each other',
      '((2 * record + which) * kPage + key_of(half))',
      '((2 * record) * kPage + key_of(half))',
    ],
    'dK: runs of other kv heads': [
      'heads overwrite the runs of others',
      'const int64_t record = work.place.kv_head * a.records + tile.record;',
      'const int64_t record = tile.record;',
    ],
    'attention backward: the wrong group': [
      'gradients of a query go to other heads',
      'static_cast<int64_t>(kv_head * group + pair % group) * depth.columns()',
      'static_cast<int64_t>(kv_head * group + pair / group % group) * depth.columns()',
    ],
  },
)

const plan = mutantsOf(
  { file: 'cuda/attention_backward_plan.cc', checks: [shared, wide] },
  {
    'dK: what is shared grows again': [
      'a sequence counts for keys that it does not share',
      'limit = std::min(limit, sequence.position);',
      'limit = sequence.position;',
    ],
    'dK: tiles of keys cross pages': [
      'keys of a tile come from two pages, and one is read',
      'std::min({most, end - first, kPage - first % kPage})',
      'std::min({most, end - first})',
    ],
    'dK: runs begin in the first segment': [
      'a run counts queries of sequences before it',
      'run.segment += segment;',
      '',
    ],
    'dK: keys of the first page': [
      'later tiles read the first page',
      '.block = first_block + first / kPage,',
      '.block = first_block,',
    ],
  },
)

export const attentionBackward = [...kernels, ...plan]
