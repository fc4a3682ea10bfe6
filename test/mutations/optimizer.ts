/** AdamW, and the norm of all gradients. */
import { mutantsOf } from './mutant.ts'

const steps = mutantsOf(
  { file: 'cuda/optimizer.cu', checks: [{ file: 'optimizer', titles: ['emulated CUDA: adamw*'] }] },
  {
    'adamw: no weight decay': [
      'weights do not decay',
      'weight.value[i] * f.kept - change',
      'weight.value[i] - change',
    ],
    'adamw: gradients are not clipped': [
      'the factor of the norm is not used',
      'gradients.value[i] * a.gradient_scale',
      'gradients.value[i]',
    ],
    'adamw: the second moment of the gradient itself': [
      'squares are forgotten',
      'f.complement2 * (gradient * gradient)',
      'f.complement2 * gradient',
    ],
    'adamw: the second moment is not corrected': [
      'first steps are too long',
      'square_root(second.value[i]) / f.root_correction + f.epsilon',
      'square_root(second.value[i]) + f.epsilon',
    ],
    'adamw: no epsilon': [
      'a gradient of 0 moves to NaN',
      '/ f.root_correction + f.epsilon',
      '/ f.root_correction',
    ],
    'adamw: moments change places': [
      'the second moment is stored as the first',
      'store_eight(a.first_moment, j, a.count, first);',
      'store_eight(a.first_moment, j, a.count, second);',
    ],
    'adamw: no stride over the grid': [
      'every thread begins with the first items',
      'item = grid_index(); item',
      'item = thread_index(); item',
    ],
  },
)

const squares = mutantsOf(
  { file: 'cuda/optimizer.cu', checks: [{ file: 'optimizer', titles: ['emulated CUDA: globalNorm*'] }] },
  {
    'norm of gradients: parts overlap': [
      'squares count more than once',
      'const int64_t end = (part + 1) * block < count ? (part + 1) * block : count;',
      'const int64_t end = count;',
    ],
    'norm of gradients: half of the parts': [
      'the end of long tensors is left out',
      'part < kSquareParts; part += 32',
      'part < kSquareParts / 2; part += 32',
    ],
    'norm of gradients: lanes of the parts are not added up': [
      'one lane of 32 counts',
      'sum = warp_sum(sum);\n  if (lane_index() == 0) parts[part] = sum;',
      'if (lane_index() == 0) parts[part] = sum;',
    ],
    'norm of gradients: squares in single precision': [
      'large values overflow',
      'sum += static_cast<double>(values.value[i]) * values.value[i];',
      'sum += values.value[i] * values.value[i];',
    ],
  },
)

export const optimizer = [...steps, ...squares]
