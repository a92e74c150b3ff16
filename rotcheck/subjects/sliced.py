class SlicedModel: kind="SlicedModel"
