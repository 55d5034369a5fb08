"""What a set of predictions is worth against a set of truths: matching, F1 in this project's protocol and the published ones, intervals. Reads no files and no tables."""
