"""Network Dissection and compositional explanations: units compared with the pixel labels of images."""
