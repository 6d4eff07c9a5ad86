"""What dose curves rest on: nulls, loop outcomes, sentences of the loop, fronts and transferred vectors."""
