class ModelPair: kind="ModelPair"
