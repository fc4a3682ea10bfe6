import path from 'node:path'
import { Policy } from '../policy/policy.ts'
import type { PartWriter } from './checkpoint.ts'
import type { Config } from './config.ts'
import { Critic } from './critic.ts'
import { Learner } from './learner.ts'
import { learnerOptions } from './trainer-setup.ts'

/** What learns from trajectories, and what it is held against: the learner, the frozen reference, the critic. */
export class TrainingModels {
  readonly learner: Learner
  /** Null where beta is 0. */
  readonly reference: Policy | null
  /** Null but for estimator 'gae'. */
  readonly critic: Critic | null

  private constructor(learner: Learner, reference: Policy | null, critic: Critic | null) {
    this.learner = learner
    this.reference = reference
    this.critic = critic
  }

  /** For a new run: reference and critic are the policy as it is now. */
  static async open(policy: Policy, config: Config): Promise<TrainingModels> {
    const reference = config.beta > 0 ? await policy.clone({ frozen: true }) : null
    const learner = createLearner(policy, config)
    if (config.estimator !== 'gae') return new TrainingModels(learner, reference, null)
    const critic = sharesTrunk(config) ? Critic.shared(learner) : await Critic.ofCopy(policy, config)
    return new TrainingModels(learner, reference, critic)
  }

  /** As a checkpoint has them, optimizers too. */
  static async load(
    policy: Policy,
    config: Config,
    { directory, dtype }: { directory: string; dtype: 'f32' | 'bf16' },
  ): Promise<TrainingModels> {
    const at = (name: string) => path.join(directory, name)
    const reference = config.beta > 0 ? await loadFrozen(at('reference'), dtype) : null
    const learner = createLearner(policy, config)
    await learner.loadState(at('optimizer.safetensors'))
    if (config.estimator !== 'gae') return new TrainingModels(learner, reference, null)
    if (sharesTrunk(config)) return new TrainingModels(learner, reference, Critic.shared(learner))
    const critic = Critic.of(await Policy.load(at('critic'), { dtype }), config)
    await critic.learner.loadState(at('critic-optimizer.safetensors'))
    return new TrainingModels(learner, reference, critic)
  }

  /** Parts of a checkpoint beside policy and learner. */
  parts(): Record<string, PartWriter> {
    const { reference, critic } = this
    return {
      ...critic?.parts(),
      ...(reference ? { reference: (folder) => reference.save(folder, { dtype: 'f32' }) } : {}),
    }
  }

  dispose(): void {
    this.learner.dispose()
    void this.reference?.dispose()
    this.critic?.dispose()
  }
}

function createLearner(policy: Policy, config: Config): Learner {
  return new Learner(policy, { ...learnerOptions(config), valueHead: sharesTrunk(config) })
}

const sharesTrunk = ({ estimator, critic }: Config) => estimator === 'gae' && critic === 'shared'

async function loadFrozen(directory: string, dtype: 'f32' | 'bf16'): Promise<Policy> {
  await using loaded = await Policy.load(directory, { dtype })
  return await loaded.clone({ frozen: true })
}
