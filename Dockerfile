# CPU by default; for a GPU: docker build --build-arg DEVICE=cuda -t hemazoo . && docker run --gpus all -p 8501:8501 hemazoo
FROM python:3.11-slim

ARG DEVICE=cpu
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 HEMAZOO_CACHE=/home/user/.cache/hemazoo

RUN useradd --create-home --uid 1000 user
WORKDIR /home/user/app

COPY requirements.txt .
# The CPU builds of torch leave several GB of CUDA libraries out of the image.
RUN if [ "$DEVICE" = cpu ]; then \
        pip install --index-url https://download.pytorch.org/whl/cpu $(grep -E '^(torch|torchvision)==' requirements.txt); \
    fi && pip install -r requirements.txt

COPY --chown=1000:1000 . .
USER 1000
EXPOSE 8501
HEALTHCHECK CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://localhost:8501/_stcore/health')"]
CMD ["streamlit", "run", "app.py", "--server.port=8501", "--server.address=0.0.0.0"]
